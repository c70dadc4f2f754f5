"""What families of language models share: which text, in what order, training on it, and using what came of it."""
