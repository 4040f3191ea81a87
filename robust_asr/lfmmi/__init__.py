"""Lattice-free maximum mutual information over phones, with CTC's topology, in plain torch (Povey et al. 2016).

``loss`` is the denominator minus the numerator, two sums over phone sequences (``denominator``, ``numerator``, and their common
part ``partition``). ``lexicon`` and ``espeak`` give the pronunciations of words, ``automaton`` and ``graphs`` turn the
pronunciations of a text into the tables of the numerator, ``phone_lm`` estimates the bigram of the denominator, and ``search``
finds words. The model that uses this package is ``robust_asr.models.conformer_lfmmi``.
"""
