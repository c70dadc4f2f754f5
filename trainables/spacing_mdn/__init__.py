"""The family `spacing_mdn`: a density for the next spacing of the zeta zeros."""
