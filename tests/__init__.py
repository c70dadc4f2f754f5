"""What holds in every process of the tests, and in those that they start: one thread each, Ray's workers not niced."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
# Ray starts its workers at nice 15, and two busy cores then starve them for minutes.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray spells it so
