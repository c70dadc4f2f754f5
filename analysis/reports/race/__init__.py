"""The report of a race of seeds."""
