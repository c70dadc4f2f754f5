"""What happens next: schedulers and samplers, pure functions of a history."""
