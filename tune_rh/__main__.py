"""``python -m tune_rh``."""

import sys

from tune_rh.cli.main import main

sys.exit(main())
