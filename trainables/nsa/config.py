"""Every hyperparameter of `nsa`, its bounds, and which of them fit together."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainables.config import require
from trainables.language.fields import Context, DataSet, LanguageFields, VocabSize
from trainables.nsa.sparsity import Sparsity
from trainables.text.pack import BYTE_VOCAB_SIZE
from trainables.training.fields import Count, LearningRate, Positive, Weight

_Tokens = Annotated[int, Field(ge=1, le=65_536)]
MIN_SELECT_BLOCK = 16
"""Of the queries in a block one reads all that it may, by construction; where that is over a tenth, health says so."""


class NSAConfig(LanguageFields):
    """A language model with native sparse attention, or its dense twin. Defaults are preset ``prod-125m``."""

    data: DataSet = "wikitext-103-257"
    vocab_size: VocabSize = BYTE_VOCAB_SIZE
    context: Context = 2048

    # Size
    width: Annotated[int, Field(ge=2, le=16_384)] = 768
    depth: Annotated[int, Field(ge=1, le=256)] = 12
    n_heads: Annotated[int, Field(ge=1, le=256)] = 12
    kv_groups: Annotated[int, Field(ge=1, le=256)] = 2
    """Groups of heads; those of a group share keys, values and selected blocks."""
    d_ff: Positive = 3072

    # Attention; with ``dense`` all below plays no part
    attn: Literal["nsa", "dense"] = "nsa"
    """``dense``: the twin that sparse attention is held against; all else is the same."""
    block: _Tokens = 32
    """Tokens of a compressed block."""
    stride: _Tokens = 16
    """Tokens from one compressed block to the next."""
    select_block: Annotated[int, Field(ge=MIN_SELECT_BLOCK, le=65_536)] = 64
    num_select: Annotated[int, Field(ge=2, le=4096)] = 16
    """Blocks that a query selects: the first one and the newest ones always, the others by their scores."""
    num_local: Literal[1, 2] = 2
    """Newest blocks that are always selected, the current one among them."""
    window: _Tokens = 512
    phi: Literal["mlp", "mean"] = "mlp"
    """How a block is compressed: ``mlp`` adds to the mean what is learnt of the block in its order."""
    gate: Literal["sigmoid", "softmax"] = "sigmoid"
    selection: Literal["auto", "gather", "union"] = "auto"
    """How selected blocks are fetched; all ways give the same."""
    reads_every: Positive = 100
    """Steps from one count of what was read to the next; 1 counts at every step."""

    # Training
    checkpointing: bool = False
    """Compute a block's activations again in the backward pass."""
    batch_size: Positive = 32
    lr: LearningRate = 2e-4
    weight_decay: Weight = 0.1
    schedule_steps: Positive = 50_000
    warmup: Count = 2000

    @property
    def sparsity(self) -> Sparsity:
        """The sizes of sparse attention."""
        return Sparsity(self.block, self.stride, self.select_block, self.num_select, self.num_local, self.window)

    @model_validator(mode="after")
    def _check(self) -> Self:
        require(self.width % self.n_heads == 0, "n_heads", self.n_heads, f"a divisor of width = {self.width}")
        dim = self.width // self.n_heads
        require(dim % 2 == 0, "n_heads", self.n_heads, f"one that leaves an even number of entries a head, not {dim}")
        require(
            self.n_heads % self.kv_groups == 0, "kv_groups", self.kv_groups, f"a divisor of n_heads = {self.n_heads}"
        )
        broken = self.sparsity.broken_rule()
        if broken is not None:
            name, value, allowed = broken
            require(False, name, value, allowed)
        return self
