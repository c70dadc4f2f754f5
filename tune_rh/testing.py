"""The laws of a family as a class of tests, for families of this project and from outside: needs pytest.

```python
from tune_rh.testing import FamilyConformance

class TestMine(FamilyConformance):
    family = "my_package:FAMILY"
```

The family needs a preset (``tiny``, or the one that ``preset`` names) whose step takes milliseconds and in which every
mechanism that keeps state is on. Spaces, sample, baselines, diagnostics and extraction are tested where the family has
them; that no prediction sees its target, where the family has a `trainables.api.CausalProbe`; and that micro-batches
are one batch, where its config has ``accumulation`` and ``batch_size``.
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tomli_w
import torch
from pydantic import ValidationError

from analysis import extraction
from analysis.diagnose import api as diagnose_api
from analysis.diagnose.findings import from_json, to_json
from analysis.diagnose.registry import diagnose, diagnose_run, diagnostics_of, offered
from analysis.diagnose.subject import Subject, draw_sample
from analysis.extraction import Extracted, NoFormula, extractor_of
from search_spaces.api import RandomTrial, Space
from search_spaces.registry import outside, spaces_of
from trainables.api import CausalProbe, Family, Finding, TrainTask
from trainables.registry import build_config, dataset_of, get_family, resolve
from trainables.trust import trust
from tune_rh.cli.main import main
from tune_rh.preflight.inputs import check_config, check_space
from tune_rh.preflight.trial import try_task
from tune_rh.record.journal import RunPaths
from tune_rh.results.reading import read

NUM_DRAWS = 200
_STEPS = 4
_PLACES = 8
_ROUNDING = 1e-5
"""How far a prediction may move, by its largest number, where other rows of a product are other ones."""


class FamilyConformance:
    """Subclass it with ``family`` set.

    Attributes:
        family: as plans spell it.
        preset: of a model that trains in milliseconds.
        min_configs: how many different ones 200 draws from each space give at the least.
        layouts: other ways for data to go through the model, as fields over the preset's; for the laws of a pass.
        even: fields that turn off what a micro-batch has of its own: its dropout, or a loss of its own balance.
    """

    family = ""
    preset = "tiny"
    min_configs = 2
    layouts: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    even: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture(scope="class")
    @classmethod
    def data_dir(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Root of all data; override it where the data should outlive the class."""
        return tmp_path_factory.mktemp("data")

    @pytest.fixture(scope="class")
    @classmethod
    def prepared(cls, data_dir: Path) -> Path:
        """``data_dir`` with the preset's data set in it."""
        torch.set_num_threads(1)
        resolve(cls._family().data).prepare(dataset_of(cls._family(), cls._config()), data_dir)
        return data_dir

    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The folder of a finished search: the preset as control and a variant of it, two seeds, two stages."""
        folder = tmp_path_factory.mktemp("conformance")
        plan = {
            "name": "conformance",
            "family": cls.family,
            "control": cls.preset,
            "presets": ["variant"],
            "configs": {"variant": {"preset": cls.preset, "fields": cls._change()}},
            "num_candidates": 1,
            "seeds": [1, 2],
            "eval_every": 2,
            "diagnose": [],
            "stages": [{"until_step": 2, "num_seeds": 2}, {"until_step": 4, "num_seeds": 2}],
        }
        (folder / "plan.toml").write_text(tomli_w.dumps(plan), encoding="utf-8")
        places = ["--runs-dir", str(folder), "--data-dir", str(prepared)]
        assert main(["search", str(folder / "plan.toml"), "--runner", "local", *places]) == 0
        return folder / "conformance"

    # --- the task -----------------------------------------------------------------------------------------------------

    @pytest.fixture(scope="class")
    @classmethod
    def tried(cls, prepared: Path) -> list[Finding]:
        """What a trial round trip finds, as before every search, over a few steps more."""
        return try_task(cls._family(), cls._config(), prepared, wanted=None, num_steps=_STEPS)

    def test_it_is_built_and_takes_steps(self, tried: list[Finding]) -> None:
        assert _of(tried, "T00", "T01", "T02") == []

    def test_state_of_step_k_continues_bit_for_bit_in_a_task_of_another_seed(self, tried: list[Finding]) -> None:
        assert _of(tried, "T05") == []

    def test_the_same_seed_twice_is_equal_and_another_seed_is_not(self, tried: list[Finding], prepared: Path) -> None:
        assert _of(tried, "T07") == []
        one, other = ([dict(task.step()) for _ in range(3)] for task in (self._task(seed, prepared) for seed in (1, 2)))
        assert one != other

    def test_evaluate_repeats_and_leaves_the_next_step_unchanged(self, tried: list[Finding]) -> None:
        assert _of(tried, "T03") == []

    def test_every_declared_metric_is_reported_and_finite(self, tried: list[Finding], prepared: Path) -> None:
        assert _of(tried, "T04") == []
        task = self._task(1, prepared)
        report = {**task.step(), **task.evaluate("val")}
        for metric in self._family().metrics:
            assert math.isfinite(report[metric.rate_of or metric.name]), metric.name

    def test_the_model_alone_takes_the_tasks_weights(self, tried: list[Finding]) -> None:
        assert _of(tried, "T06") == []

    # --- a pass of the model ------------------------------------------------------------------------------------------

    def test_no_prediction_sees_what_it_is_to_predict(self, prepared: Path) -> None:
        if not self._family().causal:
            pytest.skip("the family does not say that its predictions see the past alone")
        draw = resolve(self._family().causal)
        wrong = []
        for name, fields in self._layouts().items():
            task = self._task(1, prepared, fields)
            _stir(task.model)
            wrong += [f"{name}: {line}" for line in _seen(draw(task))]
        assert wrong == [], "\n".join(wrong)

    def test_micro_batches_have_the_gradient_of_one_batch(self, prepared: Path) -> None:
        fields = type(self._config()).model_fields
        if not {"accumulation", "batch_size"} <= fields.keys():
            pytest.skip("the config has no accumulation")
        for name, layout in self._layouts().items():
            number = self._config().batch_size
            one, many = (
                self._task(1, prepared, {**layout, **self.even, "accumulation": parts}).step() for parts in (1, number)
            )
            for metric in ("train_loss", "grad_norm"):
                same = pytest.approx(one[metric], rel=1e-4)
                assert many[metric] == same, f"{name}: {metric} is {one[metric]}, in micro-batches {many[metric]}"

    # --- configs ------------------------------------------------------------------------------------------------------

    def test_every_preset_is_a_config_and_comes_back_from_its_own_fields(self) -> None:
        for preset in self._family().presets:
            config = build_config(self._family(), preset=preset)
            assert list(check_config(f"preset {preset!r}", config)) == []
            assert dataset_of(self._family(), config) in resolve(self._family().data).names, preset

    def test_a_config_is_frozen_strict_and_refuses_unknown_fields(self) -> None:
        with pytest.raises(ValidationError):
            self._config().data = "another"
        with pytest.raises(ValidationError):
            build_config(self._family(), {"no_such_field": 1}, preset=self.preset)
        for name, value in self._change().items():
            with pytest.raises(ValidationError):
                build_config(self._family(), {name: str(value)}, preset=self.preset)

    def test_the_objective_is_among_the_metrics(self) -> None:
        assert self._family().objective in self._family().metrics

    # --- spaces -------------------------------------------------------------------------------------------------------

    def test_draws_from_every_space_build_valid_configs_that_lie_inside(self) -> None:
        for name, space in spaces_of(self.family).items():
            configs = {self._drawn(space, seed) for seed in range(NUM_DRAWS)}
            assert len(configs) >= self.min_configs, name

    def test_every_space_asks_for_a_name_always_in_the_same_way(self) -> None:
        # A sampler's model of a name, a grid and an importance each take one distribution.
        for name, space in spaces_of(self.family).items():
            drawn = check_space(f"space {name!r}", space, partial(build_config, self._family(), preset=space.base))
            assert drawn.findings == []
            assert space.auxiliary.keys() <= drawn.asked, name

    def test_every_space_pickles_by_name_and_tells_which_presets_it_can_draw(self) -> None:
        for name, space in spaces_of(self.family).items():
            assert pickle.loads(pickle.dumps(space)) == space, name
            fields = type(self._config()).model_fields.keys() | space.auxiliary.keys()
            for preset, reason in outside(self.family, space).items():
                assert reason.partition(" = ")[0] in fields, f"{preset} in {name}: {reason}"

    # --- baselines, sample and diagnostics ----------------------------------------------------------------------------

    def test_baselines_are_finite_and_kept_with_the_report(self, run: Path) -> None:
        path = run / "report" / "baselines.json"
        assert path.exists() == bool(self._family().baselines)
        for row in json.loads(path.read_text(encoding="utf-8"))["baselines"] if path.exists() else ():
            assert row["name"]
            assert math.isfinite(row["value"]), row["name"]

    def test_diagnostics_have_names_and_titles_of_their_own(self) -> None:
        listed = resolve(self._family().diagnostics) if self._family().diagnostics else ()
        assert len({diagnostic.name for diagnostic in listed}) == len(listed)
        assert len({diagnostic.title for diagnostic in listed}) == len(listed)
        assert all(diagnostic.needs in ("checkpoint", "records") for diagnostic in listed)

    @pytest.mark.parametrize("spoiled", [False, True], ids=["as it is", "of NaN"])
    def test_every_diagnostic_of_a_model_gives_a_finding(self, spoiled: bool, prepared: Path) -> None:
        _check(diagnose(self._subject(spoiled, prepared)), offered(self.family))

    @pytest.mark.parametrize("spoiled", [False, True], ids=["as it is", "of NaN"])
    def test_what_is_extracted_is_whole_and_of_a_spoiled_model_nothing(self, spoiled: bool, prepared: Path) -> None:
        if not self._family().extraction:
            return
        try:
            found = extractor_of(self.family)(self._subject(spoiled, prepared))
        except NoFormula:
            return
        assert not spoiled
        assert found.formula
        assert found.says
        for table in found.tables:
            assert all(len(row.words) + len(row.values) == len(table.header) for row in table.rows), table.caption
        text = extraction.to_json(Extracted(self.family, "c0000-s1", "", "", "", "", {}, found))
        assert extraction.to_json(extraction.from_json(text)) == text

    def test_every_diagnostic_of_a_run_gives_a_finding(self, run: Path) -> None:
        _check(diagnose_run(read(RunPaths(run)).run), offered(self.family, "records"))

    def test_the_report_shows_what_is_said_of_the_run(self, run: Path) -> None:
        page = (run / "report" / "index.html").read_text(encoding="utf-8")
        known = diagnostics_of(self.family)
        assert [name for name in offered(self.family, "records") if escape(known[name].title) not in page] == []

    @classmethod
    def _family(cls) -> Family:
        trust(cls.family)
        return get_family(cls.family)

    @classmethod
    def _config(cls) -> Any:
        return build_config(cls._family(), preset=cls.preset)

    def _task(self, seed: int, data_dir: Path, fields: Mapping[str, Any] = {}) -> TrainTask:
        config = build_config(self._family(), fields, preset=self.preset)
        task: TrainTask = resolve(self._family().task)(config, seed=seed, device="cpu", data_dir=data_dir)
        return task

    def _subject(self, spoiled: bool, data_dir: Path) -> Subject:
        """A model as diagnostics are called with it; ``spoiled`` has NaN for weights."""
        task = self._task(1, data_dir)
        task.model.eval()
        sample = draw_sample(self.family, task)
        if spoiled:
            with torch.no_grad():
                for parameter in task.model.parameters():
                    parameter.fill_(math.nan)
        return Subject("c0000-s1", self.family, self._config(), 1, task, sample, data_dir)

    def _layouts(self) -> dict[str, Mapping[str, Any]]:
        return {self.preset: {}, **self.layouts}

    @classmethod
    def _change(cls) -> dict[str, float]:
        """A field that makes another config of the preset: the first positive number that may as well be less."""
        for name, value in cls._config():
            if isinstance(value, float) and value > 0.0 and math.isfinite(value):
                try:
                    build_config(cls._family(), {name: 0.75 * value}, preset=cls.preset)
                except ValidationError:
                    continue
                return {name: 0.75 * value}
        raise AssertionError(f"no field of preset {cls.preset!r} is a positive number that may be less")

    def _drawn(self, space: Space, seed: int) -> str:
        """The digest of the config that a seed draws, after everything that holds for each draw."""
        trial = RandomTrial(seed)
        fields = space.suggest(trial)
        config = build_config(self._family(), fields, preset=space.base)
        complete: Mapping[str, Any] = config.model_dump()
        assert fields.keys() <= complete.keys()
        assert trial.params.keys() <= fields.keys() | space.auxiliary.keys()
        asked = {name: value for name, value in trial.params.items() if name not in space.auxiliary}
        assert all(fields[name] == value for name, value in asked.items())
        if space.check is not None:
            space.check(complete)
        again, params = space.replay(complete)
        assert again == fields
        # What no field holds is read back to a few digits.
        read_back = {n: pytest.approx(v, rel=1e-5) for n, v in trial.params.items() if n in space.auxiliary}
        assert params == {**asked, **read_back}
        return str(config.digest())


def _stir(model: torch.nn.Module) -> None:
    """Weights so large that everything a model sees changes what it says."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def _seen(probe: CausalProbe) -> list[str]:
    """What is wrong with who sees what, each time that a series is another one from the place of a target on."""
    said = probe.predict(probe.series)
    size = said.abs().amax().item()
    wrong = [] if math.isfinite(size) else [f"the largest number predicted is {size}"]
    targets = probe.targets.unique()
    for place in targets[torch.linspace(0, len(targets) - 1, min(_PLACES, len(targets))).long()].tolist():
        changed = torch.cat((probe.series[:place], probe.other[place:]))
        moved = (probe.predict(changed) - said).abs().amax(dim=1) / size
        before, after = moved[probe.targets <= place], moved[probe.targets > place]
        if before.max() > _ROUNDING:
            which = probe.targets[probe.targets <= place][before.argmax()].item()
            wrong.append(f"what is predicted of place {which} moves by {before.max():.2g} with places from {place} on")
        if len(after) and after.max() < 100 * _ROUNDING:
            wrong.append(f"nothing that is predicted of places after {place} moves with those from it on")
    return wrong


def _of(findings: Sequence[Finding], *ids: str) -> list[str]:
    return [str(finding) for finding in findings if finding.id in ids]


def _check(findings: list[diagnose_api.Finding], names: tuple[str, ...]) -> None:
    assert tuple(finding.name for finding in findings) == names
    for finding in findings:
        assert finding.verdict in ("pass", "warn", "fail", "no_evidence"), finding.name
        assert finding.summary.endswith("."), finding.name
    # NaN differs from itself, so the texts are compared.
    assert to_json(from_json(to_json(findings))) == to_json(findings)
