"""What the training of every family shares: the step, schedules, seeds, config fields."""
