"""Config fields of the features, what goes together, and what a config may know. Loads neither numpy nor torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainables.config import FrozenConfig, require
from trainables.training.fields import Count

BANKS: Mapping[int, tuple[tuple[int, int], ...]] = {
    0: (),
    256: ((16, 256), (32, 256), (64, 256)),
    1024: ((32, 256), (32, 512), (64, 1024), (128, 1024)),
    4096: ((32, 256), (64, 1024), (128, 2048), (256, 4096)),
}
"""By the longest past, (order, window) of the autoregressions in a bank."""
CLASS_II_ROUNDING = 1e-3
"""Log heights to this step leave the ordinate open by dozens of zeros; finer ones give it away."""


class FeatureFields(FrozenConfig):
    """What is computed from the past besides the spacings themselves; the defaults compute nothing."""

    ar_bank: Literal[0, 256, 1024, 4096] = 0
    """A bank of autoregressions refitted along the series, which look back on so many spacings; 0 is none."""
    prime_lines: Annotated[int, Field(ge=0, le=5000)] = 0
    """Spectral lines at the powers of primes up to this bound, as features and as the mixture's offset; 0 is none."""
    prime_phases: Literal["fitted", "exact"] = "fitted"
    """``fitted`` to the last ``prime_window`` spacings, or ``exact``, from the ordinates."""
    prime_window: Annotated[int, Field(ge=64, le=16_384)] = 256
    """The longest past of fitted lines, in spacings."""
    prime_noise: Annotated[float, Field(gt=0.0, le=10.0, allow_inf_nan=False)] = 0.02
    """Variance of S about its lines that the fit reckons with."""
    prime_grid: bool = False
    """Show the network the field ahead of the last zero, not only where it foretells the next one."""
    height_source: Literal["given", "inferred"] = "given"
    """Where fitted lines take the log height from: ``given`` with the data, or ``inferred`` from the same window."""
    height_every: Annotated[int, Field(ge=1, le=4096)] = 128
    """Spacings that share an inferred log height; a multiple of ``refit_every``."""
    refit_every: Annotated[int, Field(ge=1, le=256)] = 16
    """Spacings that share the coefficients of a fit, those of the bank and of fitted lines."""
    height_rounding: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)] = CLASS_II_ROUNDING
    """Step that log heights are rounded to wherever phases are not exact; 0 gives the ordinate away."""
    train_blocks: Count = 0
    """Train on the last so many blocks of the training split, those next to what follows; 0 is all of it."""

    @property
    def has_features(self) -> bool:
        """Whether a table of features is computed for the data set."""
        return bool(self.ar_bank or self.prime_lines)

    @model_validator(mode="after")
    def _check_features(self) -> Self:
        lines = self.prime_lines > 0
        require(self.prime_lines != 1, "prime_lines", self.prime_lines, "0 for none, or at least 2, the first prime")
        for name, off in (("prime_grid", False), ("prime_phases", "fitted"), ("height_source", "given")):
            value = getattr(self, name)
            require(lines or value == off, name, value, f"{off!r} with prime_lines = 0, which has no lines")
        if self.height_source == "inferred":
            self._check_inferred()
        shortest = 32 + 2 * self.refit_every
        require(
            not lines or self.prime_phases == "exact" or self.prime_window >= shortest,
            "prime_window",
            self.prime_window,
            f"at least {shortest} with refit_every = {self.refit_every}",
        )
        for order, window in BANKS[self.ar_bank][-1:]:  # of each bank the one with the fewest equations an unknown
            most = window - 2 * order - 1
            require(
                self.refit_every <= most,
                "refit_every",
                self.refit_every,
                f"at most {most} with ar_bank = {self.ar_bank}, which has AR({order}) of the last {window}",
            )
        return self

    def _check_inferred(self) -> None:
        require(
            self.prime_phases == "fitted",
            "prime_phases",
            self.prime_phases,
            "'fitted' with height_source = 'inferred': exact phases are those of a known ordinate",
        )
        require(
            self.height_every % self.refit_every == 0,
            "height_every",
            self.height_every,
            f"a multiple of refit_every = {self.refit_every}",
        )
        shortest = self.height_every + LEAST_TO_INFER - 1
        require(
            self.prime_window >= shortest,
            "prime_window",
            self.prime_window,
            f"at least {shortest} with height_source = 'inferred', height_every = {self.height_every}",
        )


LEAST_TO_INFER = 128
"""Spacings that a log height is inferred from, at the least; fewer were not found to be enough."""
BANK_LAGS, LINE_LAGS = 16, 32
"""Residuals of an autoregression that are channels; zeros whose residuals the lines' own prediction reads."""
LINE_CHANNELS, GRID_CHANNELS = 3, 17
"""Channels of lines, and those that the field ahead adds."""


def channels_of_features(fields: FeatureFields) -> int:
    """Channels of a position that features give; see `table`."""
    lines = LINE_CHANNELS + GRID_CHANNELS * fields.prime_grid
    return len(BANKS[fields.ar_bank]) * (2 + BANK_LAGS) + lines * (fields.prime_lines > 0)


def num_numbers(fields: FeatureFields) -> int:
    """How many numbers `table.Numbers` holds; 0 without features."""
    predictors = len(BANKS[fields.ar_bank]) + (fields.prime_lines > 0)
    regression = (1 + LINE_LAGS) * (fields.prime_lines > 0)
    return (regression + 2 + predictors + 2 * channels_of_features(fields)) * fields.has_features


def past_of_features(fields: FeatureFields) -> int:
    """Spacings that the features of one position look back on."""
    windows = [window for _, window in BANKS[fields.ar_bank]]
    if fields.prime_lines:
        windows.append(33 if fields.prime_phases == "exact" else fields.prime_window)
    return max(windows, default=0)
