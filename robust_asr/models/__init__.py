"""Recognisers and their parts: one architecture per file.

``base`` holds ``Recognizer``, the contract that attacks, defences, training and evaluation are written against, and the base
classes that turn an encoder into a CTC recogniser. ``adapter`` wraps a CTC model from elsewhere. From Hugging Face's files
(``hf_files``): ``whisper`` is OpenAI's Whisper (with the files of its name), ``hf_ctc`` any CTC model of transformers that hears
the waveform (with ``hf_ctc_files``). The other files hold complete models (``compact``, ``deepspeech``, ``deepspeech2``,
``conformer``, ``conformer_lfmmi``, ``rnnt``, ``transformer``, ``wav2vec2``, the denoiser ``conv_tasnet``) or layers, losses and
front ends that several models share.
"""
