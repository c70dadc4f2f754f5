"""Every hyperparameter of `spacing_mdn`, its bounds, which of them make sense together, and what they cost."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainables.api import Footprint, Preflight
from trainables.config import require
from trainables.knowledge import Knowledge
from trainables.spacing_mdn.features.options import (
    CLASS_II_ROUNDING,
    FeatureFields,
    channels_of_features,
    past_of_features,
)
from trainables.training.fields import Count, Positive, TrainingFields, Weight

SlotIdMode = Literal["fixed", "off", "permute_per_batch"]
NUM_STATISTICS = 8
"""Auxiliary statistics M0..M7 of a window (`aux_targets`)."""
_MIN_AUX_CONTEXT = 32
"""M7 is a variance over runs of 16 spacings: it needs two of them."""


class SpacingConfig(FeatureFields, TrainingFields):
    """A model, its losses and its training. The defaults are preset ``e0``.

    Slots are learned vectors beside the data: ``prefix`` puts them before it (they see no data), ``postfix`` after it
    (they see all of it, it sees none of them, and only they are read out). A slot's vector is its content plus its ID.
    ``mlp`` has neither slots nor attention: ``depth`` hidden layers read the last ``context`` spacings and the features
    of the last position.
    """

    data: Literal["first100k", "full", "gue", "shuffled"] = "full"

    # Sequence
    layout: Literal["none", "prefix", "postfix", "mlp"] = "none"
    context: Annotated[int, Field(ge=4, le=4096)] = 256
    """Spacings in a window: the longest past a prediction sees, but for what features add to it."""
    query_cuts: Annotated[int, Field(ge=1, le=64)] = 1
    """Groups of slots in one window (postfix), each seeing the data up to its own cut and predicting what follows."""
    height_input: bool = False
    """Give the model log(g / 2 pi) of each spacing's block as an input, rounded by ``height_rounding``."""
    ar_features: Annotated[int, Field(ge=0, le=512)] = 0
    """Order of the linear predictor whose residuals and predictions are inputs and the mixture's offset; 0 is none."""
    block_norm: bool = False
    """Normalise each window by its own mean and scale (postfix with one cut)."""

    # Slots
    n_slots: Annotated[int, Field(ge=0, le=256)] = 0
    slot_id_mode: SlotIdMode = "fixed"
    perm_warmup_steps: Count = 0
    """Steps of fixed IDs before ``permute_per_batch`` begins to permute."""
    eval_slot_id_mode: SlotIdMode = "fixed"
    eval_perm_average: Annotated[int, Field(ge=0, le=256)] = 0
    """Evaluate under this many seeded permutations of the IDs as well, and report the mean and the spread."""
    content_mode: Literal["normal", "zeroed"] = "normal"
    slot_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Chance that a slot is absent from a window in training."""
    norm_cap: Weight = 0.0
    """Longest a slot's vector may be; 0 is no cap."""
    readout: Literal["states", "weights"] = "states"
    """What pools the slots (postfix): a weight of each state, learnt as attention is, or a free weight of each slot."""

    # Losses
    aux_mode: Literal["off", "mean", "diagonal"] = "off"
    aux_weight: Weight = 0.01
    aux_ramp_first: Weight = 0.1
    """Share of ``aux_weight`` that is reached at ``aux_ramp_first_steps``; the rest by ``aux_ramp_steps``."""
    aux_ramp_first_steps: Count = 500
    aux_ramp_steps: Count = 3000
    ortho_weight: Weight = 0.0
    ortho_ramp_steps: Count = 5000
    entropy_reg: Weight = 0.005

    # Size
    width: Annotated[int, Field(ge=1, le=8192)] = 256
    depth: Annotated[int, Field(ge=1, le=256)] = 6
    n_heads: Annotated[int, Field(ge=1, le=256)] = 8
    n_components: Annotated[int, Field(ge=1, le=256)] = 8
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    head_bias: bool = False
    """Give biases to the input's layer and to the heads of mixture and statistics."""

    # Training
    batch_size: Positive = 512
    memory_lr_mult: Annotated[float, Field(gt=0.0, le=10.0, allow_inf_nan=False)] = 0.3
    """Learning rate of slots' contents and IDs, as a share of ``lr``."""
    decays: Literal["matrices", "all"] = "matrices"
    """What ``weight_decay`` holds for: matrices, or biases, norms, positions and slots as well."""

    # Evaluation
    eval_tail: Positive = 64
    """Layouts none and prefix: last positions of an evaluated window that count; windows lie this far apart."""
    eval_stride: Positive = 16
    """Layouts postfix and mlp: spacings between evaluated windows."""

    @property
    def scored(self) -> int:
        """How many of a window's last predictions tell what the model makes of it."""
        return 1 if self.reads_once else self.eval_tail

    @property
    def reads_once(self) -> bool:
        """Whether a window gives one prediction (one a cut), and not one at every position."""
        return self.layout in ("postfix", "mlp")

    @property
    def has_slots(self) -> bool:
        """Whether there are learned vectors beside the data."""
        return self.layout in ("prefix", "postfix")

    @property
    def reads_height(self) -> bool:
        """Whether a prediction takes the log height from outside the spacings."""
        return self.height_input or (self.prime_lines > 0 and self.height_source == "given")

    @property
    def past(self) -> int:
        """The longest past of any prediction, in spacings, with what its features look back on."""
        if self.layout == "mlp":
            return max(self.context + self.ar_features, past_of_features(self))
        return self.context + max(self.ar_features, past_of_features(self) - self.has_features)

    @model_validator(mode="after")
    def _together(self) -> Self:
        require(self.width % self.n_heads == 0, "width", self.width, f"a multiple of n_heads = {self.n_heads}")
        self._check_sequence()
        self._check_inputs()
        self._check_slots()
        return self

    def _check_sequence(self) -> None:
        postfix = self.layout == "postfix"
        require(self.eval_tail <= self.context, "eval_tail", self.eval_tail, f"at most context = {self.context}")
        require(
            2 * self.query_cuts <= self.context,
            "query_cuts",
            self.query_cuts,
            f"at most half of context = {self.context}",
        )
        require(postfix or self.query_cuts == 1, "query_cuts", self.query_cuts, "1 unless layout = 'postfix'")
        # Mean and scale of the whole window would tell a position before its end about its future.
        require(
            not self.block_norm or (postfix and self.query_cuts == 1),
            "block_norm",
            self.block_norm,
            f"False unless layout = 'postfix' and query_cuts = 1; layout = {self.layout!r}, "
            f"query_cuts = {self.query_cuts}",
        )

    def _check_inputs(self) -> None:
        require(
            self.prime_lines == 0 or self.data in ("first100k", "full"),
            "prime_lines",
            self.prime_lines,
            f"0 with data = {self.data!r}: its spacings lie at no height, and have no lines",
        )
        require(
            not self.height_input or self.height_source == "given",
            "height_input",
            self.height_input,
            "False with height_source = 'inferred', which is told no height",
        )
        own = self.has_features
        require(
            not own or self.ar_features == 0,
            "ar_features",
            self.ar_features,
            "0 with ar_bank or prime_lines, which predict by themselves",
        )
        biased = self.layout == "mlp"
        require(
            not biased or not self.head_bias, "head_bias", self.head_bias, "False with layout = 'mlp', which has all"
        )
        require(not own or not self.block_norm, "block_norm", self.block_norm, "False with ar_bank or prime_lines")

    def _check_slots(self) -> None:
        slots, postfix = self.has_slots, self.layout == "postfix"
        if slots:
            require(self.n_slots >= 1, "n_slots", self.n_slots, f"at least 1 with layout = {self.layout!r}")
        else:
            require(self.n_slots == 0, "n_slots", self.n_slots, f"0 with layout = {self.layout!r}")
        for name, off in (
            ("slot_id_mode", "fixed"),
            ("eval_slot_id_mode", "fixed"),
            ("eval_perm_average", 0),
            ("content_mode", "normal"),
            ("slot_dropout", 0.0),
            ("norm_cap", 0.0),
        ):
            value = getattr(self, name)
            require(slots or value == off, name, value, f"{off!r} with layout = {self.layout!r}, which has no slots")
        permuted = self.slot_id_mode == "permute_per_batch"
        require(
            permuted or self.perm_warmup_steps == 0,
            "perm_warmup_steps",
            self.perm_warmup_steps,
            "0 unless slot_id_mode = 'permute_per_batch'",
        )
        require(
            postfix or self.aux_mode == "off",
            "aux_mode",
            self.aux_mode,
            "'off' unless layout = 'postfix': only there do slots see the data",
        )
        require(postfix or self.readout == "states", "readout", self.readout, "'states' unless layout = 'postfix'")
        require(postfix or self.ortho_weight == 0.0, "ortho_weight", self.ortho_weight, "0 unless layout = 'postfix'")
        require(
            self.aux_mode == "off" or self.context >= _MIN_AUX_CONTEXT,
            "context",
            self.context,
            f"at least {_MIN_AUX_CONTEXT} with aux_mode = {self.aux_mode!r}",
        )
        require(
            self.aux_ramp_first_steps <= self.aux_ramp_steps,
            "aux_ramp_first_steps",
            self.aux_ramp_first_steps,
            f"at most aux_ramp_steps = {self.aux_ramp_steps}",
        )


def num_channels(config: SpacingConfig) -> int:
    """Input channels of a position; of the one position that layout ``mlp`` reads, the past spacings among them."""
    spacings = config.context if config.layout == "mlp" else 1
    guesses = 1 if config.has_features else 2 * (config.ar_features > 0)
    return spacings + guesses + config.height_input + channels_of_features(config)


def count_params(config: SpacingConfig) -> int:
    """Parameters of the model of ``config``; equal to what its module has, for every variant."""
    width, slots = config.width, config.n_slots
    channels = num_channels(config)
    if config.layout == "mlp":
        return width * (channels + 1 + (config.depth - 1) * (width + 1)) + 3 * config.n_components * (width + 1)
    statistics = {"off": 0, "mean": NUM_STATISTICS, "diagonal": slots}[config.aux_mode]
    block = 12 * width + 2
    outside = channels + config.context + 1 + 3 * config.n_components + 2 * slots + statistics
    biases = width + 3 * config.n_components + statistics if config.head_bias else 0
    readout = 0 if config.layout != "postfix" else width if config.readout == "states" else slots
    return width * (config.depth * block + outside) + biases + readout


def memory_per_window(config: SpacingConfig) -> int:
    """Numbers of four bytes, about, that the forward pass of one window in float32 keeps for the backward pass.

    Per token and block: the stream twice, both of its normalised forms, queries, keys and values, what attention mixed,
    the hidden units before and after the nonlinearity, one log-sum a head, the norms' statistics, and two masks of a
    byte where there is dropout. A postfix model keeps queries, keys and values once more, in parts; its last block all
    but keys and values of its slots alone. At the end some ten numbers a component of each predicted mixture.
    """
    width, slots = config.width, config.n_slots * config.query_cuts
    if config.layout == "mlp":
        return num_channels(config) + (2 + (config.dropout > 0.0)) * config.depth * width + 10 * config.n_components
    each = 16 * width + config.n_heads + 4 + (width / 2 if config.dropout else 0)
    postfix = config.layout == "postfix"
    predictions = config.query_cuts if postfix else config.context
    tokens = config.context + slots
    last = slots * each + config.context * 4 * width if postfix else tokens * each
    before = (config.depth - 1) * tokens * (each + (3 * width if postfix else 0))
    return int(before + last + predictions * 10 * config.n_components)


def footprint(config: SpacingConfig) -> Footprint:
    """What training the config takes."""
    windows = config.batch_size // config.accumulation
    return Footprint(count_params(config), 4 * windows * memory_per_window(config), amp=config.amp)


CLASSES = {"I": 1, "I'": 2, "II": 3, "III": 4}
"""By how much number theory a model has built in, and what it is told of the height; see the family's README."""


def known(name: str, past: int) -> Knowledge:
    """Class ``name`` of `CLASSES` with a past of so many spacings."""
    return Knowledge(CLASSES[name], f"class {name}", past)


def knowledge(config: SpacingConfig) -> Knowledge:
    """What a model of ``config`` may know.

    I: spacings only. I': also the frequencies of the primes' lines, at a log height that is inferred. II: the log
    height, with or without these lines. III: the ordinate, by exact phases or a log height that is not rounded.
    """
    told = config.reads_height and config.height_rounding < CLASS_II_ROUNDING
    if config.prime_phases == "exact" or told:
        return known("III", config.past)
    inferred = "I'" if config.prime_lines else "I"
    return known("II" if config.reads_height else inferred, config.past)


PREFLIGHT = Preflight(
    footprint=footprint,
    toys=("cpu-e0", "cpu-ar32", "cpu-mlp", "cpu-e4", "cpu-e5", "cpu-e55", "tiny", "tiny-mlp"),
    least={"P31": ("context", 256), "P32": ("width", 256)},
)
