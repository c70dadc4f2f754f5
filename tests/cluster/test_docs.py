"""The files of ``docs/cluster`` are what those who read them take."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

from tests.cluster.bed import ROOT

FOLDER = ROOT / "docs" / "cluster"


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def test_the_launcher_takes_its_file() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(read("ray.yaml"), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**read("ray.yaml"), "workers": 2}, schema)


def test_every_pod_of_kuberay_has_ray_and_the_shared_folder() -> None:
    spec = read("kuberay.yaml")["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    pods = [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]
    for pod in pods:
        (container,) = pod["containers"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert spec["rayVersion"] == ray.__version__


def test_the_script_for_slurm_is_bash() -> None:
    subprocess.run(["bash", "-n", str(FOLDER / "slurm.sh")], check=True)
