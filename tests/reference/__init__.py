"""Models once more, slow and plain, written from their definitions: what the fast ones are compared with."""
