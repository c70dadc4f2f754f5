"""Config fields that families of language models share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trainables.training.fields import MomentDecay, Positive, TrainingFields

DataSet = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
VocabSize = Annotated[int, Field(ge=2)]
Context = Annotated[int, Field(ge=2, le=65_536)]


class LanguageFields(TrainingFields):
    """Base of a language model's config: its text, and how much of it is evaluated."""

    data: DataSet
    vocab_size: VocabSize
    """Entries of the embedding; the packed data must have as many."""
    context: Context
    """Tokens in a sequence."""
    eval_sequences: Positive = 256
    """Sequences of a split that are evaluated, evenly spread over it (all there are, if fewer)."""
    betas: tuple[MomentDecay, MomentDecay] = (0.9, 0.95)
