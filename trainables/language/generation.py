"""Text from a language model: a prompt is read once, then one token is drawn after the other.

A model with ``new_caches`` sees each token once; any other one sees the whole text again for each token.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from trainables.errors import CheckpointCorrupt, TrainableError
from trainables.files import sha256
from trainables.text import sidecar
from trainables.worker import exported


class BadPrompt(TrainableError):
    """A prompt, or how it is to go on, that a model cannot take."""


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn.

    Attributes:
        temperature: logits are divided by it.
        top_p: the likeliest tokens that have this share together are drawn from.
        seed: of the draws.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.temperature < math.inf:
            raise BadPrompt(f"temperature = {self.temperature:g}: allowed is a number above 0; 0.01 is nearly greedy")
        if not 0.0 < self.top_p <= 1.0:
            raise BadPrompt(f"top_p = {self.top_p:g}: allowed is a number above 0 and up to 1")
        if not 0 <= self.seed < 2**63:
            raise BadPrompt(f"seed = {self.seed}: allowed is 0 to {2**63 - 1}")


def continue_text(folder: Path, prompt: str, tokens: int, sampling: Sampling) -> str:
    """The prompt and up to ``tokens`` more from the language model that was exported to ``folder``.

    It ends before that where the model ends the text.

    Raises:
        BadPrompt: the prompt is empty or no text, or does not fit the model's context with what is to follow.
        CheckpointCorrupt: the folder holds no exported language model, or is damaged.
    """
    from tokenizers import Tokenizer

    ids, end = _encoded(folder, prompt)
    if tokens < 1:
        raise BadPrompt(f"tokens = {tokens}: allowed is 1 or more")
    context = exported.read(folder).config.context
    if len(ids) >= context:
        raise BadPrompt(
            f"prompt: it has {len(ids)} tokens; allowed are {context - 1}, one less than the model's context"
        )
    if len(ids) + tokens > context:
        raise BadPrompt(
            f"tokens = {tokens}: allowed are {context - len(ids)} after a prompt of {len(ids)}, for the context of the "
            f"model is {context}"
        )
    model = exported.load(folder)
    for token in generate(model, ids, tokens, sampling):
        if token == end:
            break
        ids.append(token)
    text: str = Tokenizer.from_file(str(folder / sidecar.TOKENIZER)).decode(ids, skip_special_tokens=True)
    return text


def generate(model: Any, prompt: Sequence[int], number: int, sampling: Sampling) -> Iterator[int]:
    """Draw ``number`` tokens, one after the other, after those of ``prompt``."""
    generator = torch.Generator().manual_seed(sampling.seed)
    caches = model.new_caches(1, len(prompt) + number) if hasattr(model, "new_caches") else None
    ids, new = list(prompt), list(prompt)
    for _ in range(number):
        with torch.inference_mode():
            output = model(torch.tensor([ids])) if caches is None else model(torch.tensor([new]), caches)
        token = draw(output.logits[0, -1], sampling, generator)
        yield token
        new = [token]
        ids.append(token)


def draw(logits: Float[Tensor, " vocabulary"], sampling: Sampling, generator: torch.Generator) -> int:
    """One token: from the smallest set of likeliest ones that have ``top_p`` of the probability together."""
    likely, tokens = (logits.double() / sampling.temperature).softmax(dim=0).sort(descending=True, stable=True)
    before = likely.cumsum(dim=0) - likely
    kept = likely * (before < sampling.top_p)
    return int(tokens[torch.multinomial(kept, 1, generator=generator)])


def _encoded(folder: Path, prompt: str) -> tuple[list[int], int]:
    """Tokens of a prompt, and the token that ends a text."""
    from tokenizers import Tokenizer

    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        bad = prompt[error.start].encode("utf-8", "surrogateescape" if prompt[error.start] >= "\udc80" else "replace")
        raise BadPrompt(f"prompt: byte {bad!r} at character {error.start} is no UTF-8; allowed is text") from error
    if not prompt:
        raise BadPrompt("prompt: it is empty; allowed is at least one character")
    exported.read(folder)
    try:
        about = sidecar.read(folder)
        if about is None or sha256(folder / sidecar.TOKENIZER) != about.files[sidecar.TOKENIZER]:
            raise CheckpointCorrupt(f"{folder}: its tokenizer is not the one that its data set had; export again")
    except FileNotFoundError as error:
        raise CheckpointCorrupt(f"{error.filename}: is not there; only an exported language model has it") from error
    tokenizer = Tokenizer.from_file(str(folder / sidecar.TOKENIZER))
    return list(tokenizer.encode(prompt, add_special_tokens=False).ids), about.end_of_text
