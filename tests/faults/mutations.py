"""Damage drawn by a seed: to values in a tree of dicts and lists, to the text of a file, and to files of a folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from copy import deepcopy
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

HOSTILE: tuple[Any, ...] = (
    0, -1, 1, 2, 3, 0.5, -0.0, 1e308, 1e-308, 2**31, 2**63 - 1, 2**63, 10**30, -(10**18), 10**400,
    float("nan"), float("inf"), -float("inf"), True, False, date(2024, 2, 30 - 1),
    "", " ", "0", "1e3", "none", "null", "@none", "@inf", "@text:", "true", "x" * 5000, "ü", "☃", "\u202e\u200b",
    "\x1b[31mred\x1b[0m", "a\nb\tc", "[bold]a[/]", "../../etc/passwd", "/etc/passwd", "~", "os:system", "a:b:c", ":",
    ".:.", "json:", "%s{0}$HOME", "=1+1", "c0000", "control", "val_loss", "tpe", "grid", "stop", "member",
    [], [[]], [1], [1, "a", None], [0] * 500, {}, {"a": {"b": 1}}, {"": 0}, [{}], ["control", "control"],
)  # fmt: skip
"""Values that a field may be given in place of its own."""


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a tree, containers included; the root left out."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, inner in items:
        yield (*at, key)
        yield from places(inner, (*at, key))


def damaged_tree(rng: Random, tree: Any) -> Any:
    """A copy of ``tree`` with one to three of its places damaged."""
    tree = deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        found = list(places(tree))
        if not found:
            return tree
        *parents, key = rng.choice(found)
        node = tree
        for part in parents:
            node = node[part]
        _damage(rng, node, key)
    return tree


def _damage(rng: Random, node: Any, key: Any) -> None:
    """Damage ``node[key]``; numbers often only by their size, as a slip of the finger does."""
    value, how = node[key], rng.random()
    if isinstance(value, int | float) and not isinstance(value, bool) and how < 0.3:
        node[key] = rng.choice((-value, value * 10, value * 1000, value + 1, value - 1, value * 1.5, str(value)))
    elif how < 0.7:
        node[key] = deepcopy(rng.choice(HOSTILE))
    elif how < 0.8:
        del node[key]
    elif isinstance(node, dict) and how < 0.9:
        node[_misspelt(rng, str(key))] = node.pop(key)
    elif isinstance(node, list):
        node.extend(deepcopy(node[: rng.randint(1, 3)]))
    else:
        node[rng.choice(("extra", "name", "seed", "fields", "\x00"))] = deepcopy(rng.choice(HOSTILE))


def _misspelt(rng: Random, word: str) -> str:
    at = rng.randrange(len(word) + 1)
    return rng.choice((word[:at] + word[at + 1 :], word[:at] + "x" + word[at:], word.upper(), word + " ", f"{word}s"))


def damaged_text(rng: Random, content: bytes) -> bytes:
    """``content`` with its text damaged in one way."""
    at = rng.randrange(len(content) + 1)
    end = rng.randrange(at, len(content) + 1)
    lines = content.splitlines(keepends=True)
    line = rng.randrange(len(lines)) if lines else 0
    ways = (
        lambda: content[:at],
        lambda: content[:at] + content[end:],
        lambda: content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :],
        lambda: content[:at] + b"\0" * rng.randint(1, 20) + content[at:],
        lambda: b"\xef\xbb\xbf" + content,
        lambda: content.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n"))),
        lambda: content[:at] + "größe".encode("latin-1") + content[at:],
        lambda: content.decode("utf-8", "replace").encode("utf-16"),
        lambda: content[:at] + rng.choice((b"[", b"{", b"[[", b'"', b"'''")) * rng.choice((1, 5000)) + content[at:],
        lambda: content[:at] + b"9" * rng.choice((20, 5000)) + content[at:],
        lambda: b"".join((*lines[: line + 1], *lines[line:])),
        lambda: b"".join(rng.sample(lines, len(lines))),
        lambda: b"",
        lambda: b"\0" * len(content),
        lambda: rng.randbytes(200),
        lambda: content + content,
    )
    return rng.choice(ways)()


def damaged_file(rng: Random, path: Path) -> None:
    """Damage the file at ``path``: its content, or what kind of file it is."""
    content = path.read_bytes()
    if rng.random() < 0.75:
        path.write_bytes(damaged_text(rng, content))
        return
    path.unlink()
    match rng.randrange(7):
        case 0:
            path.mkdir()
        case 1:
            path.symlink_to(path.name)  # to itself
        case 2:
            path.symlink_to("nowhere")
        case 3:
            os.mkfifo(path)
        case 4:
            path.write_bytes(content)
            path.chmod(0)
        case 5:
            path.symlink_to("/dev/zero")
        case _:
            pass  # it is gone


def damaged_folder(rng: Random, folder: Path) -> None:
    """Damage one of the files below ``folder``, or the folder itself."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    if rng.random() < 0.05:
        shutil.rmtree(folder)
        if rng.random() < 0.5:
            folder.write_bytes(b"a file")
    else:
        damaged_file(rng, rng.choice(found))
