"""Making it happen: the session, the folder of a run, the runners."""
