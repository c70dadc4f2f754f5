"""The report of a comparison of two configs, and of a bisection between them."""
