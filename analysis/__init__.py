"""What reads a run afterwards: statistics, baselines, reports. No Ray."""
