"""Trackers that a plan may name in ``watch``. Each is a watcher (`tune_rh.watch.watchers`); its library is optional."""
