"""`python -m lrdsl` is the command `lrdsl`."""

import sys

from .cli import main

sys.exit(main())
