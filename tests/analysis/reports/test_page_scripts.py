"""The scripts of the page in a browser: they sort, filter, brush and open rows, and never run the words of others."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.analysis.reports.test_report_html import STAGES, losses
from tests.analysis.run_folders import simulate, write_page, write_run
from tests.browser import CHROMIUM, Tab, browser
from tests.worlds import journals
from tests.worlds.plans import plan
from tests.worlds.scripted import Simulation
from tune_rh.record.events import CandidateAdded, Event, JobEnded, SessionEnded

pytestmark = [
    pytest.mark.usefixtures("no_drawing"),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]

HOSTILE = "</script><script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\">"
_LR = '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 1.0, "log": true}}'
_KIND = '{"name": "CategoricalDistribution", "attributes": {"choices": ["plain", "bent"]}}'
_SHOWN = "Array.from(document.querySelectorAll('#candidates tbody tr:not(.detail)')).filter(r => !r.hidden)"
_SHOWN += ".map(r => r.cells[0].textContent)"


def _drawn(event: Event) -> Event:
    """With parameters: lr grows with a candidate's number, every second one is bent."""
    if not isinstance(event, CandidateAdded) or event.origin != "sampler":
        return event
    index = int(event.candidate[1:])
    params = {"lr": 0.001 * 4.0**index, "kind": "bent" if index % 2 else "plain"}
    return replace(event, params=params, distributions={"lr": _LR, "kind": _KIND})


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a search with two parameters, of which one member failed with a hostile message."""
    of = plan(num_candidates=5, stages=STAGES)
    done = Simulation(of, losses, fates={(5, 7): ("fail", 10)}, slots=2).run()
    events = [
        replace(e, reason=HOSTILE) if isinstance(e, JobEnded) and e.outcome == "failed" else _drawn(e)
        for e in done.events
    ]
    root = tmp_path_factory.mktemp("runs") / "run"
    write_run(root, of, [*events, SessionEnded(1, 0.0, "finished")])
    (root / "members" / "c0002-s7").mkdir(parents=True)
    (root / "members" / "c0002-s7" / "train.log").write_text(f"Step 10: fine\n{HOSTILE}\n")
    return write_page(root)


def in_browser(page: Path, steps: Callable[[Tab], Awaitable[None]], **window: Any) -> None:
    """Open a page, do what ``steps`` says; nothing may have been refused or thrown."""

    async def go() -> None:
        async with browser() as tab:
            await tab.open(page.as_uri(), **window)
            await steps(tab)
            assert tab.said == []

    asyncio.run(go())


async def _drag(tab: Tab, x: float, y: float, to_x: float, to_y: float) -> None:
    await tab.mouse("Pressed", x, y)
    await tab.mouse("Moved", (x + to_x) / 2, (y + to_y) / 2)
    await tab.mouse("Moved", to_x, to_y)
    await tab.mouse("Released", to_x, to_y)


def test_a_header_sorts_and_words_filter(searched: Path) -> None:
    async def steps(tab: Tab) -> None:
        header = "Array.from(document.querySelectorAll('#candidates th')).find(h => h.textContent === 'lr')"
        await tab.value(f"{header}.querySelector('button').click()")
        # The control was not drawn and has no lr: last in either direction.
        assert await tab.value(_SHOWN) == ["c0001", "c0002", "c0003", "c0004", "c0005", "c0000"]
        await tab.value(f"{header}.querySelector('button').click()")
        assert await tab.value(_SHOWN) == ["c0005", "c0004", "c0003", "c0002", "c0001", "c0000"]
        assert await tab.value(f"{header}.getAttribute('aria-sort')") == "descending"
        words = "const w = document.getElementById('words'); w.value = 'bent finished';"
        await tab.value(f"{{ {words} w.dispatchEvent(new Event('input')) }}")
        bent = await tab.value(_SHOWN)
        assert bent
        assert set(bent) <= {"c0001", "c0003", "c0005"}
        assert (await tab.value("document.getElementById('count').textContent")).endswith("of 6 candidates")

    in_browser(searched, steps)


def test_a_brush_on_an_axis_filters_the_table_and_the_slices(searched: Path) -> None:
    async def steps(tab: Tab) -> None:
        await tab.value("document.getElementById('parallel').scrollIntoView()")
        box = await tab.value(
            "(({x, y, width, height}) => [x + width / 2, y, height])"
            "(document.querySelector('#parallel .handle').getBoundingClientRect())"
        )
        x, y, height = box
        # lr by factors of four over five candidates: the upper half holds the last two and, in the middle, the third.
        await _drag(tab, x, y + 2, x, y + 0.45 * height)
        assert sorted(await tab.value(_SHOWN)) == ["c0004", "c0005"]
        assert await tab.value("document.querySelectorAll('#parallel .thread.out').length") == 4
        assert await tab.value("document.querySelectorAll('#slices circle.out').length") > 0
        await tab.value("document.getElementById('clear').click()")
        assert len(await tab.value(_SHOWN)) == 6
        assert await tab.value("document.querySelectorAll('.out').length") == 0

    in_browser(searched, steps)


def test_a_row_opens_its_curves_its_members_and_its_log(searched: Path) -> None:
    async def steps(tab: Tab) -> None:
        opens = "Array.from(document.querySelectorAll('.opens')).find(b => b.textContent === 'c0002')"
        await tab.value(f"{opens}.click()")
        detail = "document.querySelector('tr.detail')"
        # Three seeds and the control's mean behind them.
        assert await tab.value(f"{detail}.querySelectorAll('.chart g path[fill=none]').length") == 4
        assert await tab.value(f"{detail}.querySelectorAll('.inside tbody tr').length") == 3
        assert HOSTILE in await tab.value(f"{detail}.querySelector('pre').textContent")
        link = await tab.value(f"{detail}.querySelector('a').getAttribute('href')")
        assert link == "../members/c0002-s7/train.log"
        await tab.value(f"{opens}.click()")
        assert await tab.value(f"{detail} === null")

    in_browser(searched, steps)


def test_the_pointer_tells_a_value_and_axes_turn_logarithmic(searched: Path) -> None:
    async def steps(tab: Tab) -> None:
        await tab.value("document.getElementById('curves-chart').scrollIntoView()")
        point = await tab.value(
            "(() => { const drawing = document.querySelector('#curves-chart > svg');"
            "const path = Array.from(drawing.querySelectorAll('g path[stroke-width=\"2\"]'))[0];"
            "const at = path.getPointAtLength(path.getTotalLength()), box = drawing.getBoundingClientRect();"
            "const by = box.width / drawing.viewBox.baseVal.width; return [box.x + at.x * by, box.y + at.y * by]; })()"
        )
        await tab.mouse("Moved", *point)
        told = await tab.value("document.getElementById('tip').textContent")
        assert told.startswith("c0002 sampled")
        assert "mean of 3 seeds, step 60" in told
        assert "val_loss 0.53" in told
        before = await tab.value("document.querySelector('#curves-chart g path').getAttribute('d')")
        await tab.value("document.querySelector('#curves-chart .toggles input').click()")
        assert await tab.value("document.querySelector('#curves-chart g path').getAttribute('d')") != before

    in_browser(searched, steps)


def test_words_of_others_are_shown_and_never_run(searched: Path) -> None:
    async def steps(tab: Tab) -> None:
        for number in range(6):
            await tab.value(f"document.querySelectorAll('.opens')[{number}].click()")
        assert HOSTILE in await tab.value("document.getElementById('candidates').textContent")
        assert "run: a search" not in await tab.value("document.title")
        assert await tab.value("document.title") != "run"
        assert await tab.value("document.images.length") == 0

    in_browser(searched, steps)


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone(searched: Path, dark: bool) -> None:
    async def steps(tab: Tab) -> None:
        assert await tab.value("document.documentElement.scrollWidth") == 390
        paper = await tab.value("getComputedStyle(document.documentElement).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") == (not dark)

    in_browser(searched, steps, size=(390, 844), dark=dark)


@pytest.mark.parametrize("num", [0, 2, 6, 14])
def test_a_run_that_has_just_begun_has_a_page_that_works(searched: Path, tmp_path: Path, num: int) -> None:
    lines = journals.texts(searched.parents[1] / "journal.jsonl")
    (tmp_path / "run").mkdir()
    for name in ("plan.toml", "provenance.json"):
        shutil.copy(searched.parents[1] / name, tmp_path / "run" / name)
    journals.write(tmp_path / "run" / "journal.jsonl", lines[:num])

    async def steps(tab: Tab) -> None:
        shown = await tab.value(_SHOWN)
        assert len(shown) == sum('"CandidateAdded"' in line for line in lines[:num])
        await tab.value("document.querySelectorAll('.opens').forEach(button => button.click())")
        assert await tab.value("document.querySelectorAll('tr.detail').length") == len(shown)

    in_browser(write_page(tmp_path / "run", writing=True), steps)


def test_a_race_has_no_parameters_and_its_page_works(tmp_path: Path) -> None:
    stages = [{"until_step": 20, "num_seeds": 3, "top": 2}, {"until_step": 60, "num_seeds": 3}]
    simulate(tmp_path / "race", losses, unit="member", num_candidates=0, stages=stages)

    async def steps(tab: Tab) -> None:
        assert await tab.value(_SHOWN) == ["c0000"]
        assert await tab.value("document.querySelectorAll('#parallel svg').length") == 0
        assert await tab.value("document.querySelectorAll('#curves-chart > svg').length") == 1

    in_browser(write_page(tmp_path / "race"), steps)
