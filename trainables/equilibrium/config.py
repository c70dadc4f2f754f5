"""Every hyperparameter of `equilibrium`, its bounds, and which of them fit together."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainables.config import require
from trainables.language.fields import Context, DataSet, LanguageFields, VocabSize
from trainables.training.fields import Count, LearningRate, Positive, Weight

EstimatorName = Literal["bptt", "implicit", "ep", "aep_frozen", "aep_frozen_rc", "aep_tracking", "aep_dyadic", "holo"]
Mode = Literal["softmax", "energy", "mono", "nemon"]
_Steps = Annotated[int, Field(ge=1, le=100_000)]
_Positive = Annotated[float, Field(gt=0.0, le=1e6, allow_inf_nan=False)]
_Share = Annotated[float, Field(gt=0.0, le=1.0)]
FROZEN: tuple[EstimatorName, ...] = ("aep_frozen", "aep_frozen_rc", "holo")
"""Those that correct the field by a Jacobian which they freeze at the free state."""
FLOAT32 = 2.0**-23
"""Relative spacing of numbers in float32."""


def least_radius(points: int) -> float:
    """The radius at which the error of ``points`` on a circle, r^N, is as large as rounding in float32, eps / r."""
    return float(FLOAT32 ** (1.0 / (points + 1)))


class EquilibriumConfig(LanguageFields):
    """A language model whose state is the fixed point of one block. Defaults are preset ``c512``."""

    data: DataSet = "tinystories"
    vocab_size: VocabSize = 4096
    context: Context = 256

    # Size
    width: Annotated[int, Field(ge=2, le=16_384)] = 512
    n_heads: Annotated[int, Field(ge=1, le=256)] = 8
    d_ff: Positive = 2048

    # Field
    mode: Mode = "softmax"
    """``softmax``: a transformer block; ``energy``: the gradient of an energy; ``mono``, ``nemon``: contractions."""
    tied: bool = False
    """Keys are the values, and matrices that lead out are transposes of those that lead in."""
    kappa: _Positive = 2.0
    """Damping: how strongly the state is drawn to zero."""
    qk_norm: bool = False
    readout_norm: bool = True
    """Whether the readout reads a normalised state."""
    margin: _Share = 0.1
    """By how much ``mono`` and ``nemon`` contract at the least, as a share of ``kappa``."""
    residual_init: Annotated[float, Field(gt=0.0, le=10.0)] = 0.1
    """Scale of the matrices that lead back to the state when they begin."""

    # Free phase
    t1: _Steps = 150
    """Steps of relaxation from the injection."""
    t1_refine: _Steps | None = None
    """Steps after which estimators take the state, if more than ``t1``; evaluation and ``bptt`` read that of ``t1``."""
    eps: Annotated[float, Field(gt=0.0, le=2.0)] = 0.25
    """Size of a step."""
    anderson: Annotated[int, Field(ge=0, le=16)] = 0
    """States that Anderson acceleration mixes; 0: plain steps."""

    # Gradient
    estimator: EstimatorName = "aep_dyadic"
    bptt_steps: _Steps = 40
    """Of the last steps, how many ``bptt`` goes back through."""
    beta: Annotated[float, Field(gt=0.0, le=10.0)] = 0.1
    """Strength of the nudge by the summed cross-entropy."""
    holo_points: Annotated[int, Field(ge=2, le=64)] = 4
    holo_radius: Annotated[float, Field(gt=0.0, le=10.0)] = 0.2
    """Of the circle on which ``holo`` takes its nudges."""
    t2: _Steps = 60
    """Most steps of the nudged phase, or of ``implicit`` iterations."""
    t2_tol: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Adjoint residual at which the nudged phase is over; None: it takes all of ``t2``."""
    eps_nudged: Annotated[float, Field(gt=0.0, le=2.0)] | None = None
    """Size of a nudged step; None: ``eps``."""
    select: bool = True
    """Whether the estimate with the least adjoint residual is taken, instead of the last."""
    select_every: _Steps = 5
    navg: Annotated[int, Field(ge=1, le=256)] = 1
    """Batches whose gradients are averaged in a step."""
    warm_switch_step: Count = 0
    """Steps that ``warm_estimator`` is used for, before ``estimator``."""
    warm_estimator: EstimatorName = "ep"

    head_clamp_step: Count | None = None
    """Step from which on the readout is held as it is; None: it learns to the end."""

    # Stability
    jr_mode: Literal["off", "fixed", "controller"] = "controller"
    """Weight of the Jacobian's penalty: none, ``jr``, or what holds the residual at ``res_target``."""
    jr: Annotated[float, Field(gt=0.0, le=1e3)] = 0.1
    """The weight where it is fixed, or where the controller begins."""
    jr_floor: Annotated[float, Field(gt=0.0, le=1e3)] = 0.01
    jr_max: Annotated[float, Field(gt=0.0, le=1e3)] = 16.0
    jr_gain: _Share = 0.1
    """Of the controller, in the logarithm of the weight, a step."""
    res_target: _Positive = 1.5e-3
    """Residual of a step that the controller holds."""
    jr_cap: _Positive | None = 0.5
    """Most that the penalty's gradient may be of the loss's, by norm; None: it is not bounded."""
    spec_rho: _Positive | None = None
    """Bound on the largest singular value of each matrix of the field after a step; None: it is not bounded."""
    resreg: Weight = 0.0
    """Weight of the squared residual in the loss."""

    # Training
    ema: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Decay of the averaged weights that are evaluated; None: those of the last step are."""
    batch_size: Positive = 24
    lr: LearningRate = 6e-4
    weight_decay: Weight = 0.1
    schedule_steps: Positive = 12_000
    warmup: Count = 800

    @property
    def nudged_step(self) -> float:
        """The size of a nudged step."""
        return self.eps if self.eps_nudged is None else self.eps_nudged

    @property
    def estimators(self) -> tuple[EstimatorName, ...]:
        """Those that a member uses in the order of training."""
        return (self.warm_estimator, self.estimator) if self.warm_switch_step else (self.estimator,)

    def estimator_at(self, step: int) -> EstimatorName:
        """The estimator of the step about to be taken, counted from 0."""
        return self.warm_estimator if step < self.warm_switch_step else self.estimator

    @model_validator(mode="after")
    def _check(self) -> Self:
        require(self.width % self.n_heads == 0, "n_heads", self.n_heads, f"a divisor of width = {self.width}")
        self._check_mode()
        self._check_estimator()
        bounds = f"jr_max = {self.jr_max:g}"
        if self.jr_mode == "controller":
            require(self.jr_floor <= self.jr_max, "jr_floor", self.jr_floor, f"at most {bounds}")
            require(self.jr_floor <= self.jr <= self.jr_max, "jr", self.jr, f"jr_floor = {self.jr_floor:g} to {bounds}")
        for name, eps in (("eps", self.eps), ("eps_nudged", self.eps_nudged)):
            if eps is not None:
                most = 2.0 / self.kappa
                require(eps < most, name, eps, f"below 2 / kappa = {most:.3g}: from there on no state settles")
        if self.t1_refine is not None:
            require(self.t1_refine >= self.t1, "t1_refine", self.t1_refine, f"at least t1 = {self.t1}")
        return self

    def _check_mode(self) -> None:
        mode = f"mode = {self.mode!r}"
        if self.mode == "energy":
            require(self.tied, "tied", self.tied, f"True with {mode}: its matrices come in pairs")
            require(not self.qk_norm, "qk_norm", self.qk_norm, f"False with {mode}: its force is a gradient")
        elif self.mode != "softmax":
            require(not self.tied, "tied", self.tied, f"False with {mode}, which has no pairs of matrices")

    def _check_estimator(self) -> None:
        used = self.estimators
        if "bptt" in used:
            require(self.bptt_steps <= self.t1, "bptt_steps", self.bptt_steps, f"at most t1 = {self.t1}")
        if "holo" in used:
            points, radius = self.holo_points, self.holo_radius
            require(points % 2 == 0, "holo_points", points, "an even number: nudges come in pairs of both signs")
            least = least_radius(points)
            require(
                radius >= least,
                "holo_radius",
                radius,
                f"at least {least:.3g} with holo_points = {points}: below, rounding in float32 is larger than the "
                "error of so many points",
            )
            require(
                self.amp != "bf16", "amp", self.amp, "'auto' or 'off' with estimator = 'holo': its states are complex"
            )
        if self.select and any(name not in ("bptt", "implicit") for name in used):
            require(self.t2 >= self.select_every, "t2", self.t2, f"at least select_every = {self.select_every}")
