"""What is to be run: plans, their rules and files, the configs that they name, what they cost."""
