"""What can go wrong below the search: data and checkpoints. The command line maps these to exit codes.

TrainableError
+-- UnknownFamily        no family or preset has that name
|   +-- Untrusted        a file from elsewhere names code that nothing of the user's own named
+-- DataError
|   +-- DataMissing      the data set has not been made yet
|   +-- DataCorrupt      it is there, but its digest or its shape is wrong
+-- MetricError          a task reports what is no number, or leaves out what is needed
+-- CheckpointError
    +-- CheckpointCorrupt   a file is missing or its digest differs
    +-- CheckpointMismatch  it belongs to another family, config or schema
    +-- LeaseLost           another worker has taken the member over
+-- HandedOver           a member was saved on request, to go on elsewhere
+-- OutOfMemory          a GPU has no more memory for a member
"""

from __future__ import annotations


class TrainableError(Exception):
    """Base of everything that this package raises on purpose."""


class UnknownFamily(TrainableError):
    """No family or preset has that name."""


class Untrusted(UnknownFamily):
    """A file from elsewhere names a module that neither the user's command nor their code named."""


class DataError(TrainableError):
    """A data set cannot be used."""


class DataMissing(DataError):
    """The data set has not been made yet."""


class DataCorrupt(DataError):
    """The data set is there, but its digest or its shape is wrong."""


class MetricError(TrainableError):
    """A task reports what is no number, or leaves out what is needed."""


class CheckpointError(TrainableError):
    """A checkpoint cannot be used."""


class CheckpointCorrupt(CheckpointError):
    """A file of the checkpoint is missing, or its digest differs."""


class CheckpointMismatch(CheckpointError):
    """The checkpoint belongs to another family, config or schema."""


class LeaseLost(CheckpointError):
    """Another worker has taken the member over."""


class HandedOver(TrainableError):
    """A member was saved on request, to go on in another worker."""


class OutOfMemory(TrainableError):
    """A GPU, or the share of it that a job may take, has no more memory for a member."""


def shown(value: object) -> str:
    """``repr`` of a value for a message, the middle of a long one left out."""
    try:
        return shortened(repr(value))
    except ValueError:  # Python writes no number of more than 4,300 digits
        return f"({type(value).__name__}, too long to show)"


def shortened(text: str, limit: int = 200) -> str:
    """``text``, the middle left out where it is longer than ``limit``."""
    if len(text) <= limit:
        return text
    return f"{text[: limit * 3 // 4]} [{len(text) - limit:,} characters left out] {text[-(limit // 4) :]}"
