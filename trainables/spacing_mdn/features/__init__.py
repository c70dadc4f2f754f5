"""What is computed from the past of a spacing before a network sees it, one kind a file.

`linear` (a fit on the training split), `online_ar` (fits in the past itself), `prime_lines` and `field` (spectral lines
at the primes), `inferred` (the same at a height that is not given), `heights` (where on the critical line the past
lies), `table` (all of a config's, and their cache).
"""
