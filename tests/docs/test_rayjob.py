"""The manifest for KubeRay: its fields are those of RayJob v1, as KubeRay 1.5 has them, and its command is ours."""

from __future__ import annotations

import copy
import json
import re
import shlex
from typing import Any

import jsonschema
import pytest
import yaml

from converter.cli import cli
from tests.docs.pages import ROOT

MANIFEST = ROOT / "examples" / "fleet-rayjob.yaml"
TEXT, COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}


def closed(required: str, **fields: Any) -> dict[str, Any]:
    """An object with these fields and no others."""
    return {"type": "object", "properties": fields, "required": required.split(), "additionalProperties": False}


def many(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of, "minItems": 1}


TEXTS = {"type": "object", "additionalProperties": TEXT}
CONTAINER = closed(
    "name image resources",
    name=TEXT,
    image=TEXT,
    resources=closed("requests limits", requests=TEXTS, limits=TEXTS),
    volumeMounts=many(closed("name mountPath", name=TEXT, mountPath=TEXT)),
)
VOLUME = closed("name", name=TEXT, persistentVolumeClaim=closed("claimName", claimName=TEXT))
POD = closed("spec", spec=closed("containers", containers=many(CONTAINER), volumes=many(VOLUME)))
HEAD = closed("template rayStartParams", rayStartParams=TEXTS, template=POD)
WORKERS = closed(
    "template groupName",
    groupName=TEXT, replicas=COUNT, minReplicas=COUNT, maxReplicas=COUNT, rayStartParams=TEXTS, template=POD,
)  # fmt: skip
CLUSTER = closed("headGroupSpec", rayVersion=TEXT, headGroupSpec=HEAD, workerGroupSpecs=many(WORKERS))
SPEC = closed(
    "entrypoint rayClusterSpec",
    entrypoint=TEXT, backoffLimit=COUNT, shutdownAfterJobFinishes={"type": "boolean"}, ttlSecondsAfterFinished=COUNT,
    rayClusterSpec=CLUSTER,
)  # fmt: skip
RAY_JOB = closed(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"}, kind={"const": "RayJob"}, metadata=closed("name", name=TEXT), spec=SPEC,
)  # fmt: skip


@pytest.fixture
def manifest() -> Any:
    return yaml.safe_load(MANIFEST.read_text("utf-8"))


def test_its_fields_are_kuberays(manifest: Any) -> None:
    jsonschema.validate(manifest, RAY_JOB)
    wrong = copy.deepcopy(manifest)
    wrong["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="'replica' was unexpected"):
        jsonschema.validate(wrong, RAY_JOB)


def test_its_command_is_ours(manifest: Any) -> None:
    program, command, *arguments = shlex.split(manifest["spec"]["entrypoint"])
    given = cli.commands[command].make_context(command, arguments).params
    assert (program, given["to"], given["ray"]) == ("convert", "tf", "auto")
    cluster = manifest["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for container in (container for pod in pods for container in pod["template"]["spec"]["containers"]):
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert all(given[name].startswith(f"{mounts[0]}/") for name in ("sources", "out"))
        assert container["image"].endswith(cluster["rayVersion"])
    tested = re.search(r"^ray==(.+)$", (ROOT / "constraints" / "dev.txt").read_text("utf-8"), re.MULTILINE)
    assert tested is not None
    assert cluster["rayVersion"] == tested[1]


def test_the_resources_of_a_node_are_those_that_tasks_ask_for(manifest: Any) -> None:
    """KubeRay puts the text behind --resources, where a shell takes one pair of quotes off."""
    workers = manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    for group in workers:
        said = json.loads(json.loads(group["rayStartParams"]["resources"]))
        assert set(said) == {"disk", "network"}
