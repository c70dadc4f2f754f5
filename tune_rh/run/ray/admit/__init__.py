"""Which nodes of a cluster that was joined may take jobs: what each is, seen from there, and the data that it lacks."""
