"""The base of every config: frozen, strict, and with errors that name the field, the value and what is allowed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from trainables.errors import shown
from trainables.spelling import spelt


class FrozenConfig(BaseModel):
    """A frozen pydantic model that refuses unknown keys and does not coerce types (True is no int)."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", validate_default=True)

    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the resolved config as it is written down (sorted keys, no spaces)."""
        return canonical_digest(spelt(self))


def require(holds: bool, name: str, value: object, allowed: str) -> None:
    """For a config's validators: raise ValueError with the field, its value and what is allowed, unless ``holds``."""
    if not holds:
        raise ValueError(f"{name} = {value!r}: allowed is {allowed}")


def first_mistake(error: ValidationError) -> str:
    """The first field that is wrong, its value and what is allowed."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    value = "" if first["type"] == "missing" else f" = {shown(first['input'])}"
    return f"{where + value + ': ' if where else ''}{first['msg']}"


def canonical_digest(value: Any) -> str:
    """SHA-256 of canonical JSON: sorted keys, no spaces, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
