"""What ``tune-rh new`` writes: a task and its search, which run as they are."""
