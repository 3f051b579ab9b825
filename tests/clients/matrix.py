"""Which clients there are, how a driver is run, and what a run leaves as data."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from scripts.setup_clients import why_no_node
from tests.clients.recorder import Sent

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
DRIVER_TIMEOUT_S = 600
_PYTHON = ROOT / ".venv-clients" / "bin" / "python"


@dataclass(frozen=True)
class Client:
    """A client, the packages whose versions matter, and its driver."""

    name: str
    driver: str
    packages: tuple[str, ...]
    title: str
    python: Path = _PYTHON

    @property
    def is_node(self) -> bool:
        return self.driver.endswith(".mjs")

    def command(self) -> list[str]:
        return ["node" if self.is_node else str(self.python), str(HERE / "drivers" / self.driver)]

    def why_not(self) -> str:
        """A sentence that says what is missing to run it; empty when nothing is."""
        if self.is_node:
            installed = (HERE / "node_modules" / ".package-lock.json").is_file()
            return why_no_node() or (
                "" if installed else "The Node clients are not installed. Run `make setup-clients`."
            )
        return (
            ""
            if self.python.exists()
            else "The clients are not installed. Run `make setup-clients`."
        )

    def versions(self) -> dict[str, str]:
        if self.is_node:
            pinned: dict[str, str] = json.loads((HERE / "package.json").read_text())["dependencies"]
        elif self.python == _PYTHON:
            pinned = dict(
                re.findall(
                    r"^([a-z0-9-]+)==(\S+)$",
                    (ROOT / "requirements" / "clients.txt").read_text(),
                    re.M,
                )
            )
        else:
            pinned = {package: metadata.version(package) for package in self.packages}
        return {package: pinned[package] for package in self.packages}


CLIENTS = (
    Client(
        "openai-python",
        "openai_python.py",
        ("openai",),
        "`openai` for Python",
        Path(sys.executable),
    ),
    Client("openai-python-2", "openai_python.py", ("openai",), "`openai` for Python"),
    Client("openai-node", "openai_node.mjs", ("openai",), "`openai` for Node"),
    Client("langchain", "langchain_python.py", ("langchain-openai",), "LangChain, `ChatOpenAI`"),
    Client(
        "llama-index",
        "llama_index_python.py",
        ("llama-index-llms-openai-like", "llama-index-core"),
        "LlamaIndex, `OpenAILike`",
    ),
    Client("litellm", "litellm_python.py", ("litellm",), "LiteLLM"),
    Client("instructor", "instructor_python.py", ("instructor",), "instructor"),
    Client("pydantic-ai", "pydantic_ai_python.py", ("pydantic-ai-slim",), "pydantic-ai"),
    Client(
        "ai-sdk",
        "ai_sdk.mjs",
        ("ai", "@ai-sdk/openai-compatible", "@ai-sdk/openai"),
        "Vercel AI SDK",
    ),
)


@dataclass(frozen=True)
class CheckResult:
    """One check of a driver."""

    api: str
    check: str
    ok: bool
    detail: str
    seconds: float


@dataclass(frozen=True)
class FieldUse:
    """A field that a client sent, and whether the engine got it from the gateway."""

    path: str
    field: str
    is_null: bool
    is_passed_on: bool
    is_named_as_ignored: bool


@dataclass(frozen=True)
class ClientResult:
    client: str
    versions: dict[str, str]
    requests: int
    checks: list[CheckResult]
    fields: list[FieldUse] = field(default_factory=list)


def run_driver(
    client: Client, base_url: str, key: str, model: str, only: Sequence[str] = ()
) -> tuple[list[CheckResult], str]:
    """The driver's results and what it wrote to stderr."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OPENAI_", "WHET_"))
    }
    environment |= {"DO_NOT_TRACK": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [*client.command(), base_url, key, model, *(["--only", *only] if only else [])]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment,
        timeout=DRIVER_TIMEOUT_S,
        check=False,
    )
    results = [
        CheckResult(**json.loads(line))
        for line in done.stdout.splitlines()
        if line.startswith('{"api"')
    ]
    if done.returncode:
        results.append(
            CheckResult(
                "-", "driver", False, f"exit code {done.returncode}: {done.stderr[-1500:]}", 0
            )
        )
    return results, done.stderr


# --- fields ---------------------------------------------------------------------------------------

_HISTORIES = ("messages", "input")


def field_names(body: dict[str, Any]) -> Iterable[tuple[str, bool]]:
    """Names of a body's fields, those in messages and items too, and whether the value is null."""
    for name, value in body.items():
        yield name, value is None
        if name in _HISTORIES and isinstance(value, list):
            for message in value:
                yield from _inside(f"{name}[]", message)


def _inside(path: str, value: Any) -> Iterable[tuple[str, bool]]:
    if not isinstance(value, dict):
        return
    for name, each in value.items():
        yield f"{path}.{name}", each is None
        for part in each if isinstance(each, list) else [each]:
            yield from _inside(
                f"{path}.{name}[]" if isinstance(each, list) else f"{path}.{name}", part
            )


def fields_used(sent: Sequence[Sent], forwarded: Sequence[Sent]) -> list[FieldUse]:
    """What a client sent, compared with what the engine got."""
    arrived = {(each.path, name) for each in forwarded for name, _ in field_names(each.body)}
    only_null: dict[tuple[str, str], bool] = defaultdict(lambda: True)
    named: set[tuple[str, str]] = set()
    for each in sent:
        for name, is_null in field_names(each.body):
            only_null[each.path, name] &= is_null
        named |= {(each.path, name.strip()) for name in each.ignored.split(",") if name.strip()}
    return [
        FieldUse(path, name, is_null, (path, name) in arrived, (path, name) in named)
        for (path, name), is_null in sorted(only_null.items())
    ]


# --- data -----------------------------------------------------------------------------------------


def write_results(about: dict[str, Any], results: Sequence[ClientResult]) -> None:
    """Put a whole run into results.json."""
    data = {**about, "clients": [asdict(result) for result in results]}
    text = json.dumps(data, indent=1, ensure_ascii=False)
    # One line for each check and field.
    text = re.sub(r"\{\s+([^{}]*?)\s+\}", lambda found: f"{{{_one_line(found[1])}}}", text)
    RESULTS.write_text(text + "\n")


def _one_line(text: str) -> str:
    return re.sub(r"\n\s*", " ", text)


def read_results() -> tuple[dict[str, Any], list[ClientResult]]:
    data = json.loads(RESULTS.read_text())
    results = [
        ClientResult(
            client=one["client"],
            versions=one["versions"],
            requests=one["requests"],
            checks=[CheckResult(**check) for check in one["checks"]],
            fields=[FieldUse(**use) for use in one["fields"]],
        )
        for one in data.pop("clients")
    ]
    return data, results
