"""Which code from outside may be imported: what the user named, never what a file from somebody else names.

A family, space, sampler or scheduler of a user's own is a ``"module:attr"``. Their command, plan or Python names it,
and that is enough. An export or the folder of a run names it too; it counts there only if this user wrote the file,
which a signature shows.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from trainables.errors import Untrusted
from trainables.files import beside

_trusted: set[str] = set()


def trust(*references: str) -> None:
    """Let these modules be imported (``"module"`` or ``"module:attr"``); only for what the user themself named."""
    _trusted.update(reference.partition(":")[0] for reference in references)


def is_trusted(reference: str) -> bool:
    """Whether the module of ``reference`` was named to `trust`, or is imported already: nothing new would run."""
    module = reference.partition(":")[0]
    return module in _trusted or module in sys.modules


def why_not(reference: str) -> str:
    """What to tell the user about a ``reference`` that is not trusted."""
    return (
        f"{reference!r}: code from outside, named by a file and not by you, and not imported. "
        f"If you know it, say so: --trust {reference.partition(':')[0]} (in Python: trust=...)"
    )


def check_trusted(references: Collection[str]) -> None:
    """Raise `Untrusted` unless all ``references`` are trusted."""
    for reference in references:
        if not is_trusted(reference):
            raise Untrusted(why_not(reference))


def trust_signed(references: Collection[str], signed: object) -> None:
    """Trust ``references`` if ``signed``, out of the file that names them, is this user's `signature` of them."""
    if not all(map(is_trusted, references)):
        own = signature(references)
        if own is not None and isinstance(signed, str) and hmac.compare_digest(signed.encode(), own.encode()):
            trust(*references)


def signature(references: Collection[str]) -> str | None:
    """HMAC-SHA256 over ``references`` with a key that this user alone can read; None where no key can be kept.

    The key is made when it is first needed: ``$XDG_STATE_HOME/tune-rh/key`` (``~/.local/state/tune-rh/key``).
    """
    try:
        key = _key(Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "tune-rh" / "key")
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return None
    return hmac.new(key, json.dumps(sorted(references)).encode(), hashlib.sha256).hexdigest()


def _key(path: Path) -> bytes:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        made = beside(path)
        made.touch(mode=0o600)
        made.write_bytes(secrets.token_bytes(32))
        with suppress(FileExistsError):
            os.link(made, path)  # whole or not at all; of two processes the first wins
        made.unlink()
    return path.read_bytes()
