"""WikiText-103 and the tokens of GPT-2, from the Hugging Face hub.

Cut into articles. Rows of the official training, validation and test split are read one after the other: the split is
by document like everywhere.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.errors import DataError
from trainables.text.hub import Hub, columns, last_line
from trainables.text.pack import Document

if TYPE_CHECKING:
    from tokenizers import Tokenizer

GPT2_VOCAB_SIZE = 50_257
_SPLITS = ("train", "validation", "test")
_TITLE = re.compile(r" ?= ([^=].*[^=]|[^=]) = ?\n?")


WIKITEXT_103 = Hub("Salesforce/wikitext", "wikitext-103-raw-v1", "b08601e04326c79dfdd32d625aee71d232d685c3")
GPT2 = Hub("openai-community/gpt2", "tokenizer.json", "607a30d783dfa663caf39e06633721c8d4cfcd7e")


def documents(hub: Hub, downloads: Path) -> Iterator[Document]:
    """The articles of all splits, fetched into ``downloads`` if they are not there; raises `DataError` without them."""
    splits = columns(hub, "wikitext-103", _SPLITS, downloads)
    return itertools.chain.from_iterable(articles(rows) for rows in splits)


def articles(rows: Iterable[str]) -> Iterator[Document]:
    """Articles out of WikiText's rows (a line each): one begins at each title, ``= Title =`` between empty rows.

    Deeper headings have more signs (``= = Section = =``). Rows before the first title are an article without a name.
    """
    title, lines, after_empty = "", list[str](), True
    for row in rows:
        heading = _TITLE.fullmatch(row) if after_empty else None
        if heading:
            yield from _article(title, lines)
            title, lines = heading[1], []
        lines.append(row.rstrip("\n"))
        after_empty = not row.strip()
    yield from _article(title, lines)


def _article(title: str, lines: list[str]) -> Iterator[Document]:
    if any(line.strip() for line in lines):
        yield f"wikitext-103/{title}", "\n".join(lines)


def gpt2_tokenizer(downloads: Path) -> Tokenizer:
    """The tokenizer of GPT-2 (50,257 tokens), kept in ``downloads``; raises `DataError` if it cannot be had."""
    from huggingface_hub import hf_hub_download
    from tokenizers import Tokenizer

    try:
        path = hf_hub_download(GPT2.repository, GPT2.config, revision=GPT2.revision, cache_dir=downloads / "hub")
        return Tokenizer.from_file(path)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"the tokenizer of {GPT2.repository} cannot be had: {last_line(error)}") from error
