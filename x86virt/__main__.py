"""`python -m x86virt`."""

import sys

from .cli import console_script

sys.exit(console_script())
