"""What reads a run afterwards: statistics, baselines, diagnostics, reports. No Ray, and light until used."""
