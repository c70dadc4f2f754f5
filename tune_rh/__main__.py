"""``python -m tune_rh``."""

import sys

from tune_rh.cli import main

sys.exit(main())
