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


def closed(*required: str, **properties: Any) -> dict[str, Any]:
    """A JSON schema of an object with these properties and no others."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def listed(item: Any) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1}


TEXT, NUMBER = {"type": "string"}, {"type": "integer", "minimum": 0}
TEXTS = {"type": "object", "additionalProperties": TEXT}
# What `docs/cluster/kuberay.yaml` uses of ray.io/v1 and of Kubernetes' pods, closed, so that a misspelt field shows:
# https://github.com/ray-project/kuberay/blob/v1.5.1/ray-operator/apis/ray/v1/raycluster_types.go
CONTAINER = closed(
    "name",
    "image",
    name=TEXT,
    image=TEXT,
    resources=closed(limits=TEXTS, requests=TEXTS),
    ports=listed(closed("containerPort", containerPort=NUMBER, name={"type": "string", "maxLength": 15})),
    volumeMounts=listed(closed("name", "mountPath", name=TEXT, mountPath=TEXT)),
)
CLAIM = closed("claimName", claimName=TEXT)
POD = closed(
    "containers",
    containers=listed(CONTAINER),
    volumes=listed(closed("name", name=TEXT, persistentVolumeClaim=CLAIM)),
    terminationGracePeriodSeconds=NUMBER,
)
WORKERS = closed(
    "groupName",
    "minReplicas",
    "maxReplicas",
    "rayStartParams",
    "template",
    groupName=TEXT,
    replicas=NUMBER,
    minReplicas=NUMBER,
    maxReplicas=NUMBER,
    rayStartParams=TEXTS,
    template=closed("spec", spec=POD),
)
HEAD = closed("rayStartParams", "template", rayStartParams=TEXTS, template=closed("spec", spec=POD))
RAY_CLUSTER = closed(
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayCluster"},
    metadata=closed("name", name=TEXT),
    spec=closed(
        "headGroupSpec",
        rayVersion=TEXT,
        authOptions=closed(mode={"enum": ["disabled", "token"]}),
        headGroupSpec=HEAD,
        workerGroupSpecs=listed(WORKERS),
    ),
)


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def test_the_launcher_takes_its_file() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(read("ray.yaml"), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**read("ray.yaml"), "workers": 2}, schema)


def test_kuberay_takes_its_file() -> None:
    cluster = read("kuberay.yaml")
    jsonschema.validate(cluster, RAY_CLUSTER)
    cluster["spec"]["workerGroupSpecs"][0]["minReplica"] = 2
    with pytest.raises(jsonschema.ValidationError, match="minReplica"):
        jsonschema.validate(cluster, RAY_CLUSTER)


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
