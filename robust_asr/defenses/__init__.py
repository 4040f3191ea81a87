"""Defences: transformations of the audio before a recogniser, which together with the recogniser form a recogniser again.

``base`` holds the contract of a defence, ``Chain`` for several defences in a row, and ``Defended``, the recogniser behind a
defence. Attacks take ``Defended`` as they take any recogniser, so a gradient goes through the defence unless the attacker is
said to know less (``Recognizer.view``). ``noise`` and ``denoise`` each hold one defence.
"""
