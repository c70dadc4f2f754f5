"""Config fields of training that every family has: batch, AdamW, clipping, and the schedule of the learning rate."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainables.config import FrozenConfig, require
from trainables.training.schedules import ScheduleKind, lr_factor

Amp = Literal["auto", "off", "bf16"]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0.0, le=100.0, allow_inf_nan=False)]
LearningRate = Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
MomentDecay = Annotated[float, Field(ge=0.0, lt=1.0, allow_inf_nan=False)]


class TrainingFields(FrozenConfig):
    """Base of a family's config; a family overrides the defaults that do not fit it."""

    batch_size: Positive = 32
    """Windows or sequences in an optimiser step, over all its micro-batches."""
    accumulation: Positive = 1
    lr: LearningRate = 1e-3
    lr_final: Share = 0.1
    """Share of ``lr`` at which ``cosine`` and ``wsd`` end; ``constant`` has no end."""
    betas: tuple[MomentDecay, MomentDecay] = (0.9, 0.999)
    """Decay rates of AdamW's two moments."""
    weight_decay: Weight = 0.01
    clip: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 1.0
    """Bound on the norm of the gradient; a huge one never clips."""
    schedule: ScheduleKind = "cosine"
    schedule_steps: Positive = 10_000
    warmup: Count = 100
    amp: Amp = "auto"

    @model_validator(mode="after")
    def _check_training_fields(self) -> Self:
        require(
            self.batch_size % self.accumulation == 0,
            "accumulation",
            self.accumulation,
            f"a divisor of batch_size = {self.batch_size}",
        )
        require(
            self.warmup <= self.schedule_steps, "warmup", self.warmup, f"at most schedule_steps = {self.schedule_steps}"
        )
        return self

    def lr_at(self, step: int) -> float:
        """The learning rate of the step about to be taken, counted from 0."""
        return self.lr * lr_factor(
            step,
            kind=self.schedule,
            schedule_steps=self.schedule_steps,
            warmup=self.warmup,
            final=self.lr_final,
        )
