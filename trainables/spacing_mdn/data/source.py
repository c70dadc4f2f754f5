"""The family's data source: data sets made, named and checked. What needs NumPy is loaded when a set is made."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from trainables.api import Progress
from trainables.errors import DataCorrupt, DataError, DataMissing
from trainables.files import write_atomic
from trainables.spacing_mdn.data.sets import BLOCK, LAYOUTS, check_name, file_of, sidecar_of, verified
from trainables.spacing_mdn.features.options import past_of_features

_SCHEMA = 1


class _SpacingSource:
    """The family's `trainables.api.DataSource`."""

    names: tuple[str, ...] = tuple(LAYOUTS)

    def prepare(self, name: str, data_dir: Path, progress: Progress | None = None) -> Path:
        """Make the data set unless it is there and sound; returns the path of its file.

        Zeros are kept in chunks that all sizes share, so an interrupted call goes on where it was cut off and a larger
        set begins with what a smaller one made. A set whose digest does not fit is made again. ``progress`` counts
        zeros or spacings. Raises `DataCorrupt` if the zeros made or found fail the check of their counts.
        """
        path = file_of(name, data_dir)
        try:
            self.digest(name, data_dir)
        except (DataMissing, DataCorrupt):
            from trainables.spacing_mdn.data import spacings  # which loads NumPy, and a check needs none

            path.parent.mkdir(parents=True, exist_ok=True)
            content, about = spacings.make(name, path.parent, progress)
            about = {"schema": _SCHEMA, "name": name, "sha256": hashlib.sha256(content).hexdigest(), **about}
            # The file, then its side-car: a cut between the two leaves a set that is made again.
            write_atomic(path, content)
            write_atomic(sidecar_of(path), json.dumps(about, indent=2).encode() + b"\n")
        return path

    def digest(self, name: str, data_dir: Path) -> str:
        """SHA-256 of the set's file, recomputed and equal to the one recorded; raises as `verified`."""
        return verified(name, data_dir)[0]

    def check(self, config: Any, data_dir: Path) -> None:
        """Raise `DataError` unless each split holds a window with its last target and the past of its linear features,
        and the training split the past of what is refitted along the series, and as much again to learn from.
        """
        check_name(config.data)
        layout = LAYOUTS[config.data]
        if config.train_blocks > layout.train:
            raise DataError(
                f"train_blocks = {config.train_blocks}: the training split of data set {config.data!r} has "
                f"{layout.train} blocks; allowed is at most that"
            )
        allowed = BLOCK * min(layout.train, layout.val, layout.test) - 1 - config.ar_features
        if config.context > allowed:
            raise DataError(
                f"context = {config.context}: the shortest split of data set {config.data!r} holds no such window; "
                f"allowed is at most {allowed}"
            )
        past, most = past_of_features(config), BLOCK * (config.train_blocks or layout.train) // 2
        if past > most:
            name = "ar_bank" if past == config.ar_bank else "prime_window"
            raise DataError(
                f"{name} = {getattr(config, name)}: looks back on {past} spacings, over half of the training split of "
                f"data set {config.data!r}; allowed is at most {most}"
            )


SOURCE = _SpacingSource()
