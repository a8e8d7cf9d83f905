"""`python -m gpt1_hf` is the command `gpt1`."""

import sys

from .cli import main


sys.exit(main())
