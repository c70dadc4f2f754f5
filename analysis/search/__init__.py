"""Questions about a whole search: what it cost, which parameters mattered, whether its gates were right."""
