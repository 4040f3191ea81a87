"""Search: from the outputs of a recogniser's network to a transcript.

``base`` holds the contract ``Search``, and ``FrameSearch`` for recognisers with a distribution over labels in every frame.
``greedy`` takes the best label of each frame, ``beam`` uses a lexicon and a language model, ``transducer`` is for transducers.
``decoder_beam`` serves decoders that write one token after another; ``attention`` gives their words times. ``fusion`` brings a
``language_model`` into the last two. A search is given to a recogniser with ``Recognizer.use_search``; it is not saved in
checkpoints, but it enters the hash of a system.
"""
