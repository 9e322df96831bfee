"""`python -m minigpt5` is the command line."""

import sys

from minigpt5.cli import main

sys.exit(main())
