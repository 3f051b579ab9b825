"""What is compared: the upstream itself, and each gateway in front of it, started as its users
start it.
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gateway.home import WhetHome
from benchmarks.gateway.mock_upstream import BASE_MODEL
from benchmarks.gateway.peers import PEERS, prepare
from benchmarks.gateway.processes import Process

_LITELLM_KEY = "sk-benchmark-0123456789"
_START_S = 120  # LiteLLM imports for 10 s on an idle core


@dataclass(frozen=True, slots=True)
class Arm:
    """Something that answers POST /v1/chat/completions."""

    name: str
    url: str
    model: str
    key: str  # empty: it asks for none
    process: Process


@dataclass(frozen=True, slots=True)
class Ports:
    """Consecutive free ports on loopback, from `first`."""

    first: int

    def __getitem__(self, place: int) -> int:
        return self.first + place


def _bare_environment(**extra: str) -> dict[str, str]:
    """The caller's, without settings of Whet and of peers, which would change what is measured."""
    dropped = ("WHET_", "LITELLM_", "VLLM_", "PYTHON")
    return {
        name: value for name, value in os.environ.items() if not name.startswith(dropped)
    } | extra


def start_upstream(python: str, port: int, *, core: int, scratch: Path) -> Arm:
    repository = Path(__file__).parents[2]
    process = Process(
        "the mock upstream",
        [python, "-m", "benchmarks.gateway.mock_upstream", str(port)],
        core=core,
        log=scratch / "upstream.log",
        folder=repository,
    )
    process.wait_for(f"http://127.0.0.1:{port}/health", 20)
    return Arm("direct", f"http://127.0.0.1:{port}", BASE_MODEL, "", process)


def start_whet(upstream: Arm, port: int, *, core: int, scratch: Path) -> tuple[Arm, WhetHome]:
    """The gateway with a key, an alias that a rollout points to a proved adapter, metrics and the
    durable log; one worker.
    """
    home = WhetHome.make(scratch / "whet", upstream.url, port)
    command, environment = home.gateway_command()
    process = Process(
        "the gateway",
        command,
        core=core,
        log=scratch / "whet.log",
        environment=_bare_environment(**environment),
    )
    arm = Arm("whet", f"http://127.0.0.1:{port}", home.alias, home.key, process)
    try:
        process.wait_for(f"{arm.url}/healthz", _START_S)
        home.wait_until_ready(arm.url, _START_S)
    except BaseException:
        process.stop()
        raise
    return arm, home


def start_litellm(upstream: Arm, port: int, *, core: int, scratch: Path, cache: Path) -> Arm:
    """One worker with a master key; logging as it comes, no database."""
    command = prepare(PEERS["litellm"], cache)
    configuration = scratch / "litellm.yaml"
    # JSON is YAML.
    configuration.write_text(json.dumps({
        "model_list": [{"model_name": BASE_MODEL, "litellm_params": {"model": f"openai/{BASE_MODEL}", "api_base": f"{upstream.url}/v1", "api_key": "none"}}],
        "general_settings": {"master_key": _LITELLM_KEY},
    }))  # fmt: skip
    process = Process(
        "LiteLLM",
        [
            str(command),
            "--config",
            str(configuration),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--num_workers",
            "1",
        ],
        core=core,
        log=scratch / "litellm.log",
        # The price list ships with the package; without this it is fetched at the start.
        environment=_bare_environment(LITELLM_LOCAL_MODEL_COST_MAP="True"),
        folder=scratch,
    )
    return _answering(
        Arm("litellm", f"http://127.0.0.1:{port}", BASE_MODEL, _LITELLM_KEY, process),
        "/health/liveliness",
    )


def start_vllm_router(upstream: Arm, port: int, *, core: int, scratch: Path, cache: Path) -> Arm:
    """Without a key, which it can ask for, and without a log, which it does not have.

    Round robin is its fastest policy (three times its default for JSON).
    """
    command = prepare(PEERS["vllm-router"], cache)
    process = Process(
        "vllm-router",
        [
            str(command),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--prometheus-port",
            str(port + 1),
            "--worker-urls",
            upstream.url,
            "--policy",
            "round_robin",
        ],
        core=core,
        log=scratch / "vllm-router.log",
        environment=_bare_environment(),
        folder=scratch,
    )
    return _answering(
        Arm("vllm-router", f"http://127.0.0.1:{port}", BASE_MODEL, "", process), "/health"
    )


def _answering(arm: Arm, path: str) -> Arm:
    try:
        arm.process.wait_for(arm.url + path, _START_S)
    except BaseException:
        arm.process.stop()
        raise
    return arm


def pace(upstream: Arm, pace_ms: float) -> None:
    _ask(f"{upstream.url}/mock/pace", {"ms": pace_ms})


def asked(upstream: Arm) -> int:
    """Completions that the upstream was asked for since its start."""
    return int(_ask(f"{upstream.url}/mock/stats")["asked"])


def _ask(url: str, body: Mapping[str, float] | None = None) -> dict[str, int]:
    request = urllib.request.Request(url, data=None if body is None else json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=10) as response:
        answer: dict[str, int] = json.load(response)
    return answer
