"""What is searched over: families of torch models with their data and training. Importing this loads nothing heavy."""
