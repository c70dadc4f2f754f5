"""What follows a run and decides nothing: the Optuna study, TensorBoard."""
