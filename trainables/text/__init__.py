"""Packed text for language models: corpora, folders of one's own, fetching, packing, reading."""
