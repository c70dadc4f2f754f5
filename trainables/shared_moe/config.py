"""Every hyperparameter of `shared_moe`, its bounds, and which of them make sense together."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainables.config import require
from trainables.language.fields import Context, DataSet, LanguageFields, VocabSize
from trainables.training.fields import Count, LearningRate, Positive, Share, Weight

Gate = Literal["topk_softmax", "prob", "sigmoid"]
_Balance = Literal["aux", "lossfree", "none"]


class SharedMoEConfig(LanguageFields):
    """A language model whose depth may share one block of attention and experts. Defaults are preset ``control``."""

    data: DataSet = "wikitext-103"
    vocab_size: VocabSize = 50_257
    context: Context = 1024

    # Size
    width: Annotated[int, Field(ge=1, le=16_384)] = 1024
    depth: Annotated[int, Field(ge=1, le=256)] = 20
    """Applications of a block."""
    n_heads: Annotated[int, Field(ge=1, le=256)] = 16
    blocks: Literal["shared", "indexed"] = "shared"
    """``shared``: one block is applied ``depth`` times; ``indexed``: each application has a block of its own."""
    ffn: Literal["moe", "dense"] = "moe"
    d_ff: Positive = 2048
    """Hidden units of one expert, or of the dense layer."""
    gelu_approximate: Literal["none", "tanh"] = "none"
    """Whether the nonlinearity is GELU itself or, as in GPT-2, its form with tanh."""
    tied: bool = False
    """Whether the head is the embedding; otherwise it starts as a copy of it."""
    depth_embedding: bool = False
    """Add a learned vector, its own for each application, before a block is applied."""

    # Routing: all zero or off with ffn = "dense"
    num_experts: Annotated[int, Field(ge=0, le=4096)] = 40
    top_k: Annotated[int, Field(ge=0, le=64)] = 2
    gate: Gate = "topk_softmax"
    """``topk_softmax``: softmax over the chosen; ``prob``: softmax over all experts; ``sigmoid``: of the logit."""
    balance: _Balance = "aux"
    """``aux``: the auxiliary loss; ``lossfree``: a bias on the choice; ``none``: neither."""
    aux_loss_coef_start: Weight = 0.01
    aux_loss_coef_end: Weight = 0.01
    aux_warmup_frac: Share = 0.0
    """Share of ``schedule_steps`` over which the coefficient stays at its start."""
    aux_decay_end_frac: Share = 0.0
    """Share of ``schedule_steps`` at which it has come, in a straight line, to its end."""
    bias_update_rate: Weight = 0.001
    """How far a step moves each expert's bias (``lossfree``)."""
    z_loss_coef: Weight = 0.0

    # Training
    lr: LearningRate = 3e-4
    weight_decay: Weight = 0.1
    schedule_steps: Positive = 20_000
    warmup: Count = 600

    @model_validator(mode="after")
    def _check(self) -> Self:
        require(self.width % self.n_heads == 0, "n_heads", self.n_heads, f"a divisor of width = {self.width}")
        if self.ffn == "moe":
            self._check_experts()
        else:
            self._check_dense()
        self._check_schedule()
        return self

    def _check_experts(self) -> None:
        for name in ("width", "d_ff"):
            value = getattr(self, name)
            require(value % 8 == 0, name, value, "a multiple of 8 with ffn = 'moe': grouped matrix products need it")
        require(self.num_experts >= 2, "num_experts", self.num_experts, "at least 2 with ffn = 'moe'")
        require(1 <= self.top_k <= self.num_experts, "top_k", self.top_k, f"1 to num_experts = {self.num_experts}")
        require(
            self.top_k > 1 or self.gate != "topk_softmax",
            "gate",
            self.gate,
            "'prob' or 'sigmoid' with top_k = 1: a softmax over one entry is 1, and the router would learn nothing "
            "from the task",
        )

    def _check_dense(self) -> None:
        for name, off in (("num_experts", 0), ("top_k", 0), ("gate", "topk_softmax"), ("balance", "none")):
            value = getattr(self, name)
            require(value == off, name, value, f"{off!r} with ffn = 'dense', which has no experts")
        self._require_zero(("z_loss_coef",), "ffn = 'dense', which has no router")

    def _check_schedule(self) -> None:
        start, end = self.aux_loss_coef_start, self.aux_loss_coef_end
        if self.balance == "aux":
            require(start > 0.0, "aux_loss_coef_start", start, "above 0.0 with balance = 'aux'; 'none' is without it")
        else:
            self._require_zero(
                ("aux_loss_coef_start", "aux_warmup_frac", "aux_decay_end_frac"), f"balance = {self.balance!r}"
            )
        require(
            end <= start, "aux_loss_coef_end", end, f"at most aux_loss_coef_start = {start}: the coefficient decays"
        )
        if start == end:
            self._require_zero(("aux_warmup_frac", "aux_decay_end_frac"), f"a coefficient that stays at {start}")
            return
        decay_end = self.aux_decay_end_frac
        require(
            decay_end > 0.0,
            "aux_decay_end_frac",
            decay_end,
            f"above 0.0 with a coefficient that falls from {start} to {end}: its start would never hold",
        )
        require(
            self.aux_warmup_frac <= decay_end,
            "aux_decay_end_frac",
            decay_end,
            f"at least aux_warmup_frac = {self.aux_warmup_frac}",
        )

    def _require_zero(self, names: tuple[str, ...], why: str) -> None:
        for name in names:
            require(getattr(self, name) == 0.0, name, getattr(self, name), f"0.0 with {why}")
