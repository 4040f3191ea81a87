"""The measurements of an evaluation, without the loop over the data (that is ``lightning_modules.evaluation``).

``rows`` makes the row of an utterance from the result of an attack, ``systems`` describes and hashes systems and attacks, so that
rows of different settings are never mixed, ``audio`` saves the audio of the worst utterances. The files of rows, and tables made
from them, are in ``robust_asr.results``.
"""
