"""Makes every engine replica serve what it should: looks, plans (`reconcile.py`), acts, writes the
`replicas` table.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import Any

import aiohttp
from sqlalchemy import Connection, case, delete, func, insert, select, update

from serving.base import base_of
from serving.engine import EngineClient, EngineRefusedError, EngineSilentError
from serving.engine_activity import Activity, EngineProcesses, is_computing
from serving.parity import EngineLogprobs, ParityResult, check_parity
from serving.reconcile import (
    PROBE_TIMEOUT_S,
    Plan,
    ReplicaState,
    Wanted,
    base_difference,
    is_busy,
    plan,
    wanted_versions,
)
from whet.context import Context
from whet.database import reading, writing
from whet.errors import EngineError, StoreError
from whet.registry import Adapter, current_rollouts
from whet.store import base_model_parts
from whet.tables import adapters, replicas

logger = logging.getLogger(__name__)

# For adapters without a fingerprint: low ids exist in every vocabulary
_PROBE_TOKENS = list(range(1, 33))
_ACTIVITY_S = 0.5  # over which a silent engine's processor time is looked at
TICK_WAIT_S = 1.0  # for the replicas' looks; most take milliseconds
# `seen_at` moves at least this often, so that pages can tell a stopped reconciler from a quiet one
_HEARTBEAT_MS = 5_000


class Reconciler:
    """State of one process while it holds the lease; a new holder starts from the table and from
    what the engines say.
    """

    def __init__(
        self,
        context: Context,
        session: aiohttp.ClientSession,
        headers: dict[str, str],
        progress: dict[str, float] | None = None,
    ) -> None:
        self._context = context
        self._clients = {
            url: EngineClient(session, url, headers) for url in context.settings.replica_urls
        }
        self._states: dict[str, ReplicaState] = {}
        # tokens; of the base, once it is read
        self._served_length = context.settings.engine_max_model_len
        self._written: dict[str, tuple[dict[str, Any], int]] = {}
        # Replica URL -> monotonic time of a finished answer
        self._progress = progress if progress is not None else {}
        self._wanted = Wanted((), {})
        # Adapter digest -> how its base differs from ours; bases do not change while a process
        # lives
        self._differences: dict[str, str] = {}
        self._looks: dict[str, asyncio.Task[None]] = {}
        self._base_names: dict[str, str] = {}
        self._processes = EngineProcesses()
        self._listed_s: dict[str, float] = {}  # replica URL -> monotonic time of its last list
        self._lengths: dict[str, int | None] = {}  # replica URL -> tokens of its context
        # (url, adapter digest) while its process lives
        self._base_logprobs: dict[tuple[str, str], list[float]] = {}

    async def tick(self, now: int) -> None:
        """One look at everything.

        A replica that is slow to answer does not hold up the others: its look goes on beside the
        next tick.

        Raises SQLAlchemyError when the database is away; engines may be as broken as they like.
        """
        self._wanted, removed = await asyncio.to_thread(self._read)
        for url in self._clients:
            if url not in self._looks or self._looks[url].done():
                self._looks[url] = asyncio.create_task(
                    self._replica(url, self._wanted, removed, now)
                )
        done, _ = await asyncio.wait(self._looks.values(), timeout=TICK_WAIT_S)
        for look in done:
            look.result()

    async def close(self) -> None:
        """Stop looking; to be called before another may hold the lease."""
        for look in self._looks.values():
            look.cancel()
        await asyncio.gather(*self._looks.values(), return_exceptions=True)

    def _read(self) -> tuple[Wanted, set[str]]:
        settings = self._context.settings
        columns = [column for column in adapters.columns if column.name != "card"]
        with reading(self._context.database) as connection:
            known = [
                Adapter(**row._mapping, card={}) for row in connection.execute(select(*columns))
            ]
            rollouts = current_rollouts(connection)
            base = base_of(self._context)
            self._served_length = base.served_length(settings)
            others = [
                one.digest
                for one in known
                if one.removed_at is None
                and one.base_digest != base.digest
                and one.digest not in self._differences
            ]
            parts = adapters.c.card["fingerprint"]["base_parts"]
            trained_on = (
                {
                    row.digest: row[1]
                    for row in connection.execute(
                        select(adapters.c.digest, parts).where(adapters.c.digest.in_(others))
                    )
                }
                if others
                else {}
            )
            if not self._states:
                self._states = {url: self._recall(connection, url) for url in self._clients}
        if base.folder is not None:
            served = base_model_parts(base.folder) if trained_on else {}
            self._differences |= {
                digest: base_difference(found if isinstance(found, dict) else {}, served)
                for digest, found in trained_on.items()
            }
        present = [adapter for adapter in known if adapter.removed_at is None]
        wanted = wanted_versions(
            present,
            rollouts,
            base_digest=base.digest,
            max_resident=settings.engine_max_cpu_loras,
            max_rank=settings.engine_max_lora_rank,
            differences=self._differences,
        )
        return wanted, {adapter.engine_name for adapter in known if adapter.removed_at is not None}

    def _recall(self, connection: Connection, url: str) -> ReplicaState:
        """What the holder before us proved; `_look` checks that the process is still the same."""
        row = connection.execute(select(replicas).where(replicas.c.url == url)).first()
        return (
            ReplicaState(url, row.state, row.detail or "", row.ready, row.refused, row.base_digest)
            if row
            else ReplicaState(url)
        )

    async def _replica(self, url: str, wanted: Wanted, removed: set[str], now: int) -> None:
        client, state = self._clients[url], self._states[url]
        try:
            served = await self._look(client, state)
            self._listed_s[url] = time.monotonic()
        except EngineSilentError as error:
            silent_s = time.monotonic() - self._listed_s.get(url, -math.inf)
            if not await self._is_busy(state, silent_s):
                is_starting = state.state == "starting"
                self._void(state, "starting" if is_starting else "hung", str(error))
        except EngineError as error:
            self._void(state, "starting" if state.state == "starting" else "gone", str(error))
        else:
            step = plan(state, served, wanted, removed=removed, now=now)
            if step.restarted:
                self._void(
                    state,
                    "starting",
                    "The engine restarted; its versions are loaded and proved again.",
                )
                step = plan(state, served, wanted, removed=removed, now=now)
            await self._act(client, state, step, now)
        await self._write(state, now)

    async def _activity(self, url: str) -> Activity | None:
        return await asyncio.to_thread(self._processes.activity, url, time.monotonic())

    async def _is_busy(self, state: ReplicaState, silent_s: float) -> bool:
        """Whether a ready engine that has been silent works on something. Says so in its detail."""
        url = state.url
        before = await self._activity(url)
        await asyncio.sleep(_ACTIVITY_S)
        computes = is_computing(before, await self._activity(url))
        if state.state != "ready" or not is_busy(silent_s, is_computing=computes):
            return False
        state.detail = f"Busy: it computes, and has not answered for {silent_s:.0f} s."
        logger.info("Engine %s is busy and stays in rotation.", url)
        return True

    async def _look(self, client: EngineClient, state: ReplicaState) -> set[str]:
        """The names the engine answers to.

        Notes the base's name, and voids what was proved on another process.
        """
        served = await client.served()
        found = next((name for name in served if not name.is_adapter), None)
        if found is None:
            raise EngineError(f"The engine at {client.url} serves no base model.")
        base_name = found.name
        self._lengths[client.url] = found.max_model_len
        proof = state.ready.get("base")
        if state.probed_at == 0 and (
            proof is None
            or proof.get("process") is None
            or proof["process"] != await client.process_started_at()
        ):
            self._void(state, "starting", "")
        state.base_digest = self._check_base(client.url, base_name)
        state.detail = "" if state.state == "ready" else state.detail
        self._base_names[client.url] = base_name
        return {name.name for name in served}

    def _check_base(self, url: str, name: str) -> str | None:
        """The base's digest if the engine's name for it says so, None if the name says nothing."""
        base = base_of(self._context)
        if name.startswith("base--") and name != base.engine_name:
            raise EngineError(
                f"The engine at {url} serves {name}, this installation's base is"
                f" {base.engine_name}: restart the engine, or set WHET_BASE_MODEL to the base it"
                " serves."
            )
        return base.digest if name == base.engine_name else None

    def _void(self, state: ReplicaState, to: str, why: str) -> None:
        if state.ready and why:
            logger.warning("Engine %s leaves rotation: %s", state.url, why)
        state.state, state.detail, state.ready, state.refused, state.probed_at = to, why, {}, {}, 0
        for key in [key for key in self._base_logprobs if key[0] == state.url]:
            del self._base_logprobs[key]

    # --- acting -----------------------------------------------------------------------------------------------------

    async def _act(self, client: EngineClient, state: ReplicaState, step: Plan, now: int) -> None:
        if step.probe and not await self._probe(client, state, now):
            return
        for name in step.unload:
            await self._try(client.unload(name), f"Unloading {name}")
            state.ready = {
                digest: proof
                for digest, proof in state.ready.items()
                if proof["engine_name"] != name
            }
        for version in step.prove:
            try:
                await self._bring_up(client, state, version, load=version in step.load, now=now)
            except (EngineRefusedError, StoreError) as error:
                state.refused[version.digest] = str(error)
                logger.error("Engine %s refuses %s: %s", state.url, version.label, error)
            except EngineError as error:
                logger.warning("Engine %s: %s is tried again. %s", state.url, version.label, error)
                return
            await self._write(state, now)

    async def _probe(self, client: EngineClient, state: ReplicaState, now: int) -> bool:
        began = time.monotonic()
        try:
            await client.one_token(self._base_names[client.url], timeout_s=PROBE_TIMEOUT_S)
        except EngineError as error:
            if self._progress.get(client.url, 0.0) > began:
                return True  # it finished somebody's answer meanwhile: slow, not hung
            silent_s = (now - state.probed_at) / 1000
            if isinstance(error, EngineSilentError) and await self._is_busy(state, silent_s):
                return False  # what else is to be done can wait
            self._void(
                state, "hung" if state.state in {"ready", "hung"} else "starting", str(error)
            )
            return False
        if "base" not in state.ready:
            state.ready["base"] = {
                "engine_name": self._base_names[client.url],
                "proved_at": now,
                "process": await client.process_started_at(),
                "max_model_len": self._lengths[client.url],
            }
        if state.state != "ready":
            logger.info("Engine %s is ready.", state.url)
        state.state, state.detail, state.probed_at = "ready", "", now
        await self._write(state, now)
        return True

    async def _bring_up(
        self, client: EngineClient, state: ReplicaState, version: Adapter, *, load: bool, now: int
    ) -> None:
        card = await asyncio.to_thread(self._card, version.digest)
        if load:
            folder = await asyncio.to_thread(self._context.store.local_folder, version.path)
            await self._load(client, version.engine_name, str(folder.absolute()))
        result = await self._prove(client, version, card.get("fingerprint"))
        if result.reason:
            state.refused[version.digest] = result.reason
            logger.error("Engine %s: %s", state.url, result.reason)
            await self._try(client.unload(version.engine_name), f"Unloading {version.engine_name}")
            return
        state.ready[version.digest] = {
            "engine_name": version.engine_name,
            "proved_at": now,
            "parity": result.parity,
        }
        logger.info("Engine %s is ready for %s.", state.url, version.label)

    async def _load(self, client: EngineClient, name: str, path: str) -> None:
        try:
            await client.load(name, path)
        except EngineRefusedError:
            # "Already loaded" is what we want, if it is our folder: the holder of the lease before
            # us may just have done it.
            if not any(
                served.name == name and served.path == path for served in await client.served()
            ):
                raise

    def _card(self, digest: str) -> dict[str, Any]:
        with reading(self._context.database) as connection:
            return dict(
                connection.execute(
                    select(adapters.c.card).where(adapters.c.digest == digest)
                ).scalar_one()
            )

    async def _prove(
        self, client: EngineClient, version: Adapter, fingerprint: dict[str, Any] | None
    ) -> ParityResult:
        limit = self._served_length - 1  # the probe asks for one token behind the prompt
        prompts = [
            prompt["token_ids"][:limit] for prompt in (fingerprint or {}).get("prompts", [])
        ] or [_PROBE_TOKENS]
        key = (client.url, version.digest)
        if key not in self._base_logprobs:
            self._base_logprobs[key] = [
                value
                for tokens in prompts
                for value in await client.prompt_logprobs(self._base_names[client.url], tokens)
            ]
        measured = [
            value
            for tokens in prompts
            for value in await client.prompt_logprobs(version.engine_name, tokens)
        ]
        asked, text = ((fingerprint or {}).get(name) for name in ("asked", "text"))
        base_name = self._base_names[client.url]
        found = EngineLogprobs(
            measured,
            self._base_logprobs[key],
            await client.tokenize(base_name, asked["messages"]) if asked else None,
            await client.tokenize_text(base_name, text["text"]) if text else None,
        )
        return check_parity(version.label, fingerprint, found, limit=limit)

    async def _try(self, call: Any, what: str) -> None:
        try:
            await call
        except EngineError as error:
            logger.warning("%s did not work, which harms nothing: %s", what, error)

    # --- the table --------------------------------------------------------------------------------------------------

    async def _write(self, state: ReplicaState, now: int) -> None:
        values = {
            "state": state.state,
            "detail": state.detail or None,
            "ready": dict(state.ready),
            "refused": {**self._wanted.refused, **state.refused},
            "base_digest": state.base_digest,
        }
        known = self._written.get(state.url)
        if known is not None and known[0] == values and now - known[1] < _HEARTBEAT_MS:
            return
        await asyncio.to_thread(self._store, state.url, values, now)
        self._written[state.url] = (values, now)

    def _store(self, url: str, values: dict[str, Any], now: int) -> None:
        with writing(self._context.database) as connection:
            connection.execute(delete(replicas).where(replicas.c.url.not_in(list(self._clients))))
            is_ready = values["state"] == "ready"
            same = (replicas.c.state == "ready") == is_ready
            since = case((same, func.coalesce(replicas.c.since, now)), else_=now)
            row = update(replicas).where(replicas.c.url == url)
            if not connection.execute(row.values(**values, seen_at=now, since=since)).rowcount:
                new = insert(replicas).values(url=url, **values, seen_at=now, since=now)
                connection.execute(new)
