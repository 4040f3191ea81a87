"""Recognisers and their parts: one architecture per file.

``base`` holds ``Recognizer``, the contract that attacks, defences, training and evaluation are written against, and the base
classes that turn an encoder into a CTC recogniser. ``adapter`` wraps a CTC model from elsewhere, ``whisper`` is OpenAI's
Whisper from Hugging Face's files (with ``whisper_files``, ``whisper_features`` and ``whisper_text``). The other files hold
complete models (``compact``, ``deepspeech2``, ``conformer``, ``conformer_lfmmi``, ``transformer``, the denoiser ``conv_tasnet``) or
layers and front ends that several models share.
"""
