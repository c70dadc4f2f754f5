"""Checkpoints that a test changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainables.config import canonical_digest
from trainables.worker.checkpoint import INDEX


def rewrite(path: Path, **changes: Any) -> None:
    """Change an index as only this code can: with its digest."""
    index = {**json.loads((path / INDEX).read_text()), **changes}
    index.pop("digest")
    (path / INDEX).write_text(json.dumps({**index, "digest": canonical_digest(index)}))
