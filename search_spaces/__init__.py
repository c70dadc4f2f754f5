"""What can be tried: one file a family, standard library only."""
