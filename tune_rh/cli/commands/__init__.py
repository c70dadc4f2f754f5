"""One file a command: its docstring is its help, `add_arguments` declares its options, `run` returns its exit code."""
