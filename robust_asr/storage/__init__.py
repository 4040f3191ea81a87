"""Files: how objects and results get to disk and back without trusting the file.

``files`` writes a file completely or not at all, ``sealed`` adds a checksum, ``archive`` inspects tensors before they are
loaded, ``audio`` reads audio that a stranger may have made: ``containers`` tells what a file is, ``ogg`` whether it is whole,
``mpeg`` how long it is. ``describe`` turns an object into plain data, and ``trust`` builds the object from such data, but only
from classes on an allowlist; ``trial`` builds it without memory first, and ``parts`` loads modules in this way. ``partial`` saves
the state of long work, so that a killed run continues. ``robust_asr.checkpoint`` uses all of them.
"""
