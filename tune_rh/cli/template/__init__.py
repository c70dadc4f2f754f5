"""What ``tune-rh new`` writes: a task and a plan that run as they are."""
