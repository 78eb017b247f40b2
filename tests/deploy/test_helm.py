"""The Helm chart: what its templates come to is valid Kubernetes, and names what exists.

The templates keep to a small part of Helm's language, `{{ .Values.x }}`,
`{{ .Release.Name }}` and `if … end`, so that a few lines can render them here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from normbank.config import Settings

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "normbank"
TEMPLATES = ("api.yaml", "init.yaml", "listener.yaml", "worker.yaml")
IF = re.compile(r"\s*\{\{- if (.+?) \}\}(.*?)\s*\{\{- end \}\}", re.DOTALL)
VALUE = re.compile(r"\{\{ (.+?) \}\}")


def values() -> dict[str, Any]:
    return dict(YAML(typ="safe").load(CHART / "values.yaml"))


def render(template: str, given: dict[str, Any]) -> list[dict[str, Any]]:
    """Objects of one template file."""
    scope = {"Values": given, "Release": {"Name": "brains"}}

    def look_up(words: str) -> Any:
        found: Any = scope
        for name in words.strip().removeprefix(".").split("."):
            found = found[name]
        return found

    text = (CHART / "templates" / template).read_text()
    text = IF.sub(lambda m: m[2] if look_up(m[1]) else "", text)
    text = VALUE.sub(lambda m: str(look_up(m[1])), text)
    assert "{{" not in text
    return [one for one in YAML(typ="safe").load_all(text) if one is not None]


def objects(**changes: Any) -> dict[tuple[str, str], dict[str, Any]]:
    given = values()
    for part, change in changes.items():
        given[part].update(change)
    found = [one for name in TEMPLATES for one in render(name, given)]
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


@pytest.mark.parametrize("gpus", [0, 2])
def test_every_object_is_valid(gpus: int) -> None:
    made = objects(api={"gpus": gpus}, worker={"gpus": gpus})
    for one in made.values():
        kubernetes_validate.validate(one, "1.34", strict=True)
    limits = made["Deployment", "brains-api"]["spec"]["template"]["spec"]["containers"][0][
        "resources"
    ]["limits"]
    assert limits.get("nvidia.com/gpu", 0) == gpus


def test_whoever_meets_a_pacs_gets_its_file_and_nobody_else_does() -> None:
    def mounted(made: dict[tuple[str, str], dict[str, Any]]) -> list[str]:
        pods = {
            name: one["spec"]["template"]["spec"]
            for (kind, name), one in made.items()
            if kind == "Deployment"
        }
        for pod in pods.values():
            kept = {volume["name"] for volume in pod["volumes"]}
            assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} <= kept
        return sorted(name for name, pod in pods.items() if "pacs" in str(pod["volumes"]))

    with_pacs = objects(pacs={"secret": "hospital-pacs"})
    for one in with_pacs.values():
        kubernetes_validate.validate(one, "1.34", strict=True)
    assert mounted(with_pacs) == ["brains-api", "brains-listener", "brains-worker"]
    without = objects()
    assert mounted(without) == []
    assert ("Deployment", "brains-listener") not in without


def test_the_api_grows_with_its_queue() -> None:
    made = objects()
    scaler = made["HorizontalPodAutoscaler", "brains-api"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == "brains-api"
    assert scaler["metrics"][0]["pods"]["metric"]["name"] == "normbank_queue_depth"
    assert scaler["maxReplicas"] > scaler["minReplicas"]


def test_selectors_find_their_pods() -> None:
    made = objects()
    for name in ("brains-api", "brains-worker"):
        spec = made["Deployment", name]["spec"]
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    service = made["Service", "brains"]["spec"]
    assert service["selector"] == {"app": "brains-api"}


def test_one_job_makes_the_first_key_and_no_pod_makes_any() -> None:
    made = objects()
    job = made["Job", "brains-init"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"][:2] == ["normbank", "init"]
    for name in ("brains-api", "brains-worker"):
        pod = made["Deployment", name]["spec"]["template"]["spec"]
        assert "initContainers" not in pod
        secrets = [source["secretRef"]["name"] for source in pod["containers"][0]["envFrom"]]
        assert secrets == [values()["secret"]]  # who serves does not know the owner


def test_every_setting_in_the_chart_exists() -> None:
    known = {f"NORMBANK_{name.upper()}" for name in Settings.model_fields}
    for template in TEMPLATES:
        text = (CHART / "templates" / template).read_text()
        assert set(re.findall(r"NORMBANK_[A-Z_]+", text)) <= known
    named = re.findall(r"NORMBANK_[A-Z_]+", (CHART / "values.yaml").read_text())
    assert set(named) <= known


def test_images_are_those_of_the_dockerfile() -> None:
    dockerfile = (CHART.parents[2] / "Dockerfile").read_text()
    for name, image in values()["image"].items():
        if name in ("api", "worker"):
            assert f"AS {name}\n" in dockerfile
            assert image == f"normbank-{name}"
