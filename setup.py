"""Only here to refuse another Python with a sentence: pip would first name a conflict of the pins. All else is in setup.cfg."""

import platform
import sys

from setuptools import setup

if sys.version_info[:2] not in ((3, 11), (3, 12), (3, 13)):
    sys.exit("robust-asr needs Python 3.11, 3.12 or 3.13, this is " + platform.python_version())
setup()
