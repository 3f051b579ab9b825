"""A home folder for the gateway as an installation has it after its first training: a key, an
adapter version, an alias that points to it.

The rows and files are those that training and a promotion leave behind. The adapter has no weights
worth the name, since the mock has none either; its fingerprint holds what the mock answers, so the
gateway's own proof of readiness runs as it does with vLLM.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select

from benchmarks.errors import BenchmarkError
from benchmarks.gateway.exact import Row
from benchmarks.gateway.mock_upstream import BASE_MODEL, log_probability
from serving.processes import gateway_process
from whet.access import create_key
from whet.clock import now_ms
from whet.context import Context, open_context
from whet.database import reading, writing
from whet.ids import new_id
from whet.registry import adapter_path, engine_name
from whet.settings import load_settings
from whet.store import base_model_digest, digest_files, digest_json
from whet.tables import adapters, interactions, rollouts

_ALIAS = "support"
_RANK = 16
_PROBES = [[3 * n + k for k in range(12)] for n in range(4)]  # token ids
_DRAIN_S = 120.0  # a log that needs longer for the rows of one run does not keep up at all
_POLL_S = 0.1


def _safetensors(path: Path) -> None:
    """The smallest valid file: one tensor of one number."""
    header = json.dumps({"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\0\0")


@dataclass(slots=True)
class WhetHome:
    context: Context
    key: str
    alias: str
    upstream: str
    port: int

    @classmethod
    def make(cls, folder: Path, upstream: str, port: int) -> WhetHome:
        """A new home that uses the engine at `upstream` and has its gateway on `port`."""
        base = folder / "base"
        base.mkdir(parents=True)
        (base / "config.json").write_text(
            json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"})
        )
        (base / "chat_template.jinja").write_text("{{ messages[-1].content }}")
        _safetensors(base / "model.safetensors")
        context = open_context(
            load_settings(
                home=folder / "home", base_model=str(base), engine_urls=upstream, gateway_port=port
            )
        )
        with writing(context.database) as connection:
            _, key = create_key(
                connection, "benchmark", secret=context.secret, actor="benchmark", now=now_ms()
            )
        home = cls(context, key, _ALIAS, upstream, port)
        home._add_adapter(base_model_digest(base))
        return home

    def _add_adapter(self, base_digest: str) -> None:
        """Version 1, live under the alias, as a promotion leaves it."""
        configuration = {
            "base_model_name_or_path": "",
            "peft_type": "LORA",
            "r": _RANK,
            "lora_alpha": 2 * _RANK,
            "target_modules": ["q_proj"],
            "task_type": "CAUSAL_LM",
        }
        scratch = self.context.settings.home / "made"
        scratch.mkdir()
        (scratch / "adapter_config.json").write_text(json.dumps(configuration))
        _safetensors(scratch / "adapter_model.safetensors")
        digest = digest_files(scratch, ["adapter_config.json", "adapter_model.safetensors"])
        card = self._card(digest, base_digest)
        path = adapter_path(_ALIAS, 1, digest)

        def fill(target: Path) -> None:
            for file in scratch.iterdir():
                (target / file.name).write_bytes(file.read_bytes())
            (target / "card.json").write_text(json.dumps(card))

        self.context.store.put_folder(path, fill)
        now = now_ms()
        with writing(self.context.database) as connection:
            connection.execute(insert(adapters).values(
                digest=digest, name=_ALIAS, version=1, path=path, base_digest=base_digest, template_digest=card["template_digest"],
                dataset_digest=None, run_id=None, rank=_RANK, gate="pass", card=card, created_at=now, removed_at=None,
            ))  # fmt: skip
            connection.execute(insert(rollouts).values(
                id=new_id("rol", at=now), alias=_ALIAS, generation=1, stable_digest=digest, candidate_digest=None, candidate_share=0.0,
                previous_digest=None, pinned=False, state="live", reason="benchmark", actor="benchmark", created_at=now,
            ))  # fmt: skip

    def _card(self, digest: str, base_digest: str) -> dict[str, Any]:
        name = engine_name(_ALIAS, 1, digest)

        def expected(model: str, probe: list[int]) -> list[float | None]:
            return [
                log_probability(model, position, token) if position else None
                for position, token in enumerate(probe)
            ]

        prompts = [
            {
                "token_ids": probe,
                "base_logprobs": expected(BASE_MODEL, probe),
                "adapter_logprobs": expected(name, probe),
            }
            for probe in _PROBES
        ]
        return {
            "name": _ALIAS,
            "version": 1,
            "base_digest": base_digest,
            "template_digest": digest_json("benchmark"),
            "rank": _RANK,
            "fingerprint": {"prompts": prompts},
        }

    def gateway_command(self) -> tuple[list[str], dict[str, str]]:
        """Its command line and environment, as the supervisor starts it with one worker."""
        settings, process = self.context.settings, gateway_process(self.context)
        environment = {
            **process.environment,
            "WHET_BASE_MODEL": settings.base_model,
            "WHET_ENGINE_URLS": self.upstream,
            "WHET_GATEWAY_PORT": str(self.port),
            "WHET_GATEWAY_WORKERS": "1",
        }
        return process.argv, environment

    def wait_until_ready(self, url: str, within_s: float) -> None:
        """Until a completion through the alias comes back from the adapter. Raises BenchmarkError."""
        deadline, found = time.monotonic() + within_s, ""
        body = json.dumps(
            {"model": self.alias, "messages": [{"role": "user", "content": "hello"}]}
        ).encode()
        while time.monotonic() < deadline:
            request = urllib.request.Request(
                f"{url}/v1/chat/completions",
                data=body,
                headers={"authorization": f"Bearer {self.key}", "content-type": "application/json"},
            )
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    found = response.headers["x-whet-adapter"]
                    if found == f"{self.alias}@v1":
                        return
            except urllib.error.HTTPError as error:
                found = error.read().decode(errors="replace")[:300]
            except OSError as error:
                found = str(error)
            time.sleep(_POLL_S)
        raise BenchmarkError(
            f"The gateway did not answer through {self.alias}@v1 within {within_s:g} s; the last"
            f" answer: {found}"
        )

    # --- the log ----------------------------------------------------------------------------------------------------

    def statuses_since(self, since_ms: int) -> dict[str, int]:
        """Rows of requests that came in since then, by status."""
        query = (
            select(interactions.c.status, func.count().label("rows"))
            .where(interactions.c.created_at >= since_ms)
            .group_by(interactions.c.status)
        )
        with reading(self.context.database) as connection:
            return {row.status: row.rows for row in connection.execute(query)}

    def rows_since(self, since_ms: int) -> list[Row]:
        query = select(
            interactions.c.id,
            interactions.c.stream,
            interactions.c.response_sha256,
            interactions.c.status,
        ).where(interactions.c.created_at >= since_ms)
        with reading(self.context.database) as connection:
            return [Row(*row) for row in connection.execute(query)]

    def wait_for_rows(self, since_ms: int, asked: Callable[[], int]) -> dict[str, int]:
        """Until the database has a row for every request since then that reached the upstream;
        then, or after the time limit, what is there.
        """
        deadline = time.monotonic() + _DRAIN_S
        while True:
            wanted, found = asked(), self.statuses_since(since_ms)
            rows = sum(found.values())
            if rows >= wanted or time.monotonic() > deadline:
                return {"asked": wanted, "rows": rows, "complete": found.get("complete", 0)}
            time.sleep(_POLL_S)
