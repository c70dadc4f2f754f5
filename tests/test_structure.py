"""The house keeps its shape: folders of a dozen modules at most, no circle of imports, no import upwards."""

from __future__ import annotations

import pytest

from tests.structure import ROOMS, circles, folders, modules

VARIANTS = {
    "tune_rh/cli/commands",
    "analysis/spacing_mdn",
    "analysis/shared_moe",
    "analysis/nsa",
    "analysis/equilibrium",
    "trainables/equilibrium/estimators",
}
"""Folders of variants of one interface, one file each, which may grow."""

LAYERS = (
    "testing", "adapters", "cli", "api", "checking", "results", "simulation", "run", "preflight", "watch", "decide",
    "record",
    "plan", "errors",
)  # fmt: skip
"""Of ``tune_rh``, from the top down."""


def test_no_folder_holds_over_a_dozen_modules() -> None:
    assert [folder for folder, number in folders().items() if number > 12 and folder not in VARIANTS] == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circles(modules()) == []


@pytest.mark.parametrize(("prefix", "order"), [("", ROOMS), ("tune_rh.", LAYERS)], ids=["rooms", "tune_rh"])
def test_no_import_runs_upwards(prefix: str, order: tuple[str, ...]) -> None:
    def level(name: str) -> int | None:
        part = name.removeprefix(prefix).split(".")[0]
        return order.index(part) if name.startswith(prefix) and part in order else None

    levels = {name: level(name) for name in modules()}
    upward = [
        f"{name} imports {target}"
        for name, module in modules().items()
        for target in module.imports
        if levels[name] is not None and levels[target] is not None and levels[target] < levels[name]  # type: ignore[operator]
    ]
    assert upward == []


def test_every_module_of_tune_rh_stands_in_a_layer() -> None:
    inside = {name.split(".")[1] for name in modules() if name.startswith("tune_rh.")}
    assert inside == {*LAYERS, "__main__"}
