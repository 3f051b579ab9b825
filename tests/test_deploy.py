"""The files in deploy/ name settings, modules and commands that exist.

They are not run here: no container engine is at hand.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from whet.settings import Settings

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
FILES = [
    DEPLOY / "Dockerfile",
    DEPLOY / "compose" / "compose.yaml",
    DEPLOY / "kubernetes" / "whet.yaml",
    DEPLOY / "kubernetes" / "train.yaml",
]
# Compose's own, and those of set-up
NOT_SETTINGS = {"WHET_POSTGRES_PASSWORD", "WHET_SETUP", "WHET_TORCH_INDEX"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_setting_and_module_named_exists(path: Path) -> None:
    text = path.read_text()
    known = {f"WHET_{name.upper()}" for name in Settings.model_fields} | NOT_SETTINGS
    assert not set(re.findall(r"\bWHET_[A-Z_]+", text)) - known
    for module in re.findall(r"python, -m, ([a-z.]+)", text):
        assert find_spec(module), module


def test_the_image_takes_every_package_along() -> None:
    copied = set(re.findall(r"^COPY (\w+) ", (DEPLOY / "Dockerfile").read_text(), re.M))
    assert {
        "whet",
        "serving",
        "training",
        "monitoring",
        "feedback",
        "examples",
        "requirements",
        "scripts",
    } <= copied


def test_in_compose_the_engine_is_on_loopback_of_a_network_that_the_gateway_alone_shares() -> None:
    services = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]
    assert services["gateway"]["network_mode"] == "service:engine"
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert sorted(published) == ["127.0.0.1:8000:8000", "127.0.0.1:8080:8080"]
    for name in ("engine", "gateway", "console", "scheduler", "worker"):
        assert services[name]["read_only"] is True and services[name]["cap_drop"] == ["ALL"]


def test_in_kubernetes_everything_is_closed_but_gateway_console_and_metrics() -> None:
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "whet.yaml").read_text()))
    policies = {
        each["metadata"]["name"]: each["spec"]
        for each in documents
        if each["kind"] == "NetworkPolicy"
    }
    assert policies["closed"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    opened = [
        rule["port"]
        for spec in policies.values()
        for ingress in spec.get("ingress", [])
        for rule in ingress["ports"]
    ]
    assert sorted(opened) == [8000, 8080, 8082]
    pods = [each["spec"]["template"]["spec"] for each in documents if each["kind"] == "Deployment"]
    for container in (
        one for pod in pods for one in (*pod.get("initContainers", []), *pod["containers"])
    ):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert all(pod["securityContext"]["runAsNonRoot"] for pod in pods)


def test_a_training_job_has_the_volume_and_the_narrow_rights_of_the_product() -> None:
    pod = yaml.safe_load((DEPLOY / "kubernetes" / "train.yaml").read_text())["spec"]["template"][
        "spec"
    ]
    assert (
        pod["securityContext"]["runAsNonRoot"] is True
        and pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    )
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "whet-state" and pod[
        "containers"
    ][0]["command"][:3] == ["whet", "train", "run"]
