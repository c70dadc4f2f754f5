"""The structure of the product, measured from its source: folders, imports between modules, circles, sizes.

``python -m tests.structure`` prints the figures of ``docs/architecture.md``. Every import counts, those inside
functions and under ``TYPE_CHECKING`` as well.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("tune_rh", "analysis", "search_spaces", "trainables")


@dataclass(frozen=True)
class Module:
    """One source file.

    Attributes:
        name: dotted; a package is called as its folder.
        imports: modules of the product that it imports.
        lines: of the file.
        comments: lines that hold a comment.
        public: public functions and classes that it defines at its top level.
    """

    name: str
    path: Path
    imports: frozenset[str]
    lines: int
    comments: int
    public: int


def modules() -> dict[str, Module]:
    """Every module of the product, by its dotted name."""
    paths = {_name(path): path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))}
    return {name: _measure(name, path, paths) for name, path in paths.items()}


def circles(found: Mapping[str, Module]) -> list[list[str]]:
    """Circles of imports, each as a path that ends where it began, until cutting one edge of each leaves none."""
    graph = {name: set(module.imports) for name, module in found.items()}
    circles = []
    while True:
        sorter = TopologicalSorter(graph)
        try:
            sorter.prepare()
        except CycleError as error:
            circle = list(error.args[1])
            circles.append(circle)
            graph[circle[1]].discard(circle[0])
            continue
        return circles


def folders() -> dict[str, int]:
    """How many modules each folder of the product holds; ``__init__`` and ``__main__`` do not count."""
    counts: Counter[str] = Counter()
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            if not path.name.startswith("__"):
                counts[str(path.parent.relative_to(ROOT))] += 1
    return dict(counts)


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _measure(name: str, path: Path, known: Mapping[str, Path]) -> Module:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    imports = frozenset(target for target in _imported(tree, known) if target != name)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = len({token.start[0] for token in tokens if token.type == tokenize.COMMENT})
    return Module(name, path, imports, text.count("\n"), comments, _public(tree.body))


def _imported(tree: ast.Module, known: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                if inside in known:
                    yield inside
                elif node.module in known:
                    yield node.module


def _public(body: list[ast.stmt]) -> int:
    defined = (node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef))
    return sum(not node.name.startswith("_") for node in defined)


def main() -> None:
    """Print the figures."""
    found = modules()
    lines, comments = sum(m.lines for m in found.values()), sum(m.comments for m in found.values())
    public = sum(m.public for m in found.values())
    tests = sum(path.read_text(encoding="utf-8").count("\n") for path in (ROOT / "tests").rglob("*.py"))
    arrows = {(a.rpartition(".")[0], b.rpartition(".")[0]) for a, m in found.items() for b in m.imports}
    print(f"modules                      {len(found)}")
    print(f"folders                      {len(folders())}")
    print(f"largest folder               {max(folders().values())} modules")
    print(f"entries at the top of tune_rh  {len(_entries(ROOT / 'tune_rh'))}")
    print(f"arrows between folders       {sum(a != b for a, b in arrows)}")
    print(f"circles of modules           {len(circles(found))}")
    print(f"product lines                {lines}")
    print(f"test lines                   {tests}")
    print(f"public names                 {public} ({1000 * public / lines:.1f} per 1,000 lines)")
    print(f"comment lines per 100        {100 * comments / lines:.1f}")


def _entries(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if not p.name.startswith("__") and p.suffix in ("", ".py")]


if __name__ == "__main__":
    main()
