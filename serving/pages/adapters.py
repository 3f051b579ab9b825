"""Adapters: which version answers, how each did, and the three deeds: promote, roll back, pin."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request
from sqlalchemy import Connection
from starlette.responses import JSONResponse, Response

from serving.controller import count_arms, policy_of
from serving.pages import lineage, reading, versions
from serving.pages.paired import find_paired
from serving.rollout import Counts, decide
from serving.rollout_store import RolloutStore, rollout_rows
from whet.access import User
from whet.database import reading as reads
from whet.errors import InputError, NotFoundError
from whet.health.version_summary import VersionSummary, live_since, summarise_versions
from whet.registry import Rollout, alias_filter, rollout_history
from whet.traffic_series import DEFAULT_PERIOD, PERIODS, TrafficFilter
from whet.web.filters import clip
from whet.web.shell import Shell
from whet.web.traffic_charts import load_traffic_charts

_HISTORY = 30
_POLLED_S = 30.0
_Text = Annotated[str, Form()]
Traffic = Callable[[Connection, str, int], Mapping[str | None, VersionSummary]]


def router(shell: Shell) -> APIRouter:
    """Entry point `whet.pages`."""
    shell.add_page("Adapters", "/adapters", "adapters", 50)
    routes = APIRouter(dependencies=[Depends(shell.require("viewer"))])
    polled = PolledTraffic()

    @routes.get("/adapters")
    def overview(request: Request) -> Response:
        """Every alias with its versions in time."""
        with reads(shell.context.database) as connection:
            found = versions.boards(connection)
        return shell.render(
            request,
            "serving/adapters.html",
            boards=found,
            headline=_headline(found),
            **_words(shell),
        )

    @routes.get("/adapters/{alias}")
    def alias_page(
        request: Request, alias: str, a: str = "", b: str = "", since: str = DEFAULT_PERIOD
    ) -> Response:
        """One alias: what is live, on trial and before; its traffic over time; two versions
        compared (`a`, `b`); what happened.
        """
        values = _alias_values(shell, alias, a, b, read_traffic)
        with reads(shell.context.database) as connection:
            values["charts_of"] = load_traffic_charts(
                connection, since, shell.now(), TrafficFilter(alias)
            )
        values["ranges"] = PERIODS
        return shell.render(request, "serving/alias.html", **values)

    @routes.get("/adapters/{alias}/live")
    def alias_live(request: Request, alias: str) -> Response:
        """The part of the alias page that follows what happens."""
        values = _alias_values(shell, alias, "", "", polled.read)
        return shell.render(request, "serving/alias_live.html", **values)

    @routes.get("/adapters/{name}/v{version}")
    def version_page(request: Request, name: str, version: int) -> Response:
        """One version: its gate, where it is ready, its recipe and what it came from."""
        return shell.render(
            request, "serving/version.html", **_version_values(shell, name, version)
        )

    @routes.get("/api/rollouts")
    def rollouts(alias: str = "") -> Response:
        """What every alias points to, or the history of one, newest first; as `whet rollout show
        --json` prints them.
        """
        with reads(shell.context.database) as connection:
            return JSONResponse(rollout_rows(connection, alias_filter(connection, alias) or ""))

    _deeds(routes, shell)
    return routes


def _deeds(routes: APIRouter, shell: Shell) -> None:
    """Each carries the generation its page showed: if somebody changed the alias meanwhile, nothing
    is done and the page says so.
    """
    store = RolloutStore(shell.context.database, shell.context.settings)
    operator = Depends(shell.require("operator"))

    @routes.post("/adapters/{alias}/promote")
    def promote(
        alias: str,
        expected: _Text = "",
        version: _Text = "",
        reason: _Text = "",
        force: _Text = "",
        user: User = operator,
    ) -> Response:
        """Give all traffic to a version, or to the one on trial."""
        row = store.promote(
            alias,
            version or None,
            force=force == "1",
            **_how(user, reason or "promoted in the console", shell, expected),
        )
        return _back(shell, row, "answers {alias} now.")

    @routes.post("/adapters/{alias}/rollback")
    def rollback(
        alias: str,
        expected: _Text = "",
        reason: _Text = "",
        unpin: _Text = "",
        user: User = operator,
    ) -> Response:
        """Take the version on trial back, or go to the one that was live before; `unpin=1`: of an
        alias that is pinned.
        """
        how = _how(user, reason or "rolled back in the console", shell, expected)
        if unpin == "1":
            how["expected"] = store.unpin(alias, **how).generation
        row = store.rollback(alias, **how)
        return _back(shell, row, "answers {alias} again.")

    @routes.post("/adapters/{alias}/pin")
    def pin(
        alias: str,
        expected: _Text = "",
        version: _Text = "",
        reason: _Text = "",
        user: User = operator,
    ) -> Response:
        """Hold the alias where it is."""
        row = store.pin(
            alias, version or None, **_how(user, reason or "pinned in the console", shell, expected)
        )
        return _back(shell, row, "stays the version of {alias} until it is unpinned.")

    @routes.post("/adapters/{alias}/unpin")
    def unpin(alias: str, expected: _Text = "", user: User = operator) -> Response:
        """Let rollouts move the alias again."""
        row = store.unpin(alias, **_how(user, "unpinned in the console", shell, expected))
        return shell.redirect(f"/adapters/{row.alias}", f"Rollouts may move {row.alias} again.")

    @routes.post("/adapters/{alias}/try")
    def put_on_trial(
        alias: str,
        expected: _Text = "",
        version: _Text = "",
        share: _Text = "",
        user: User = operator,
    ) -> Response:
        """Give a version a share of the traffic."""
        row = store.start(
            alias,
            version,
            _share(share),
            **_how(user, "put on trial in the console", shell, expected),
        )
        return shell.redirect(
            f"/adapters/{row.alias}",
            f"The version is on trial with {100 * row.candidate_share:.0f} % of {row.alias}.",
        )


def _how(user: User, reason: str, shell: Shell, expected: str) -> dict[str, Any]:
    return {
        "actor": user.name,
        "reason": reason[:500],
        "now": shell.now(),
        "expected": int(expected) if expected.isdigit() else None,
    }


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(
            f"The share is {clip(text, 20)!r}; expected a number above 0 and below 1."
        ) from error


def _back(shell: Shell, row: Rollout, words: str) -> Response:
    with reads(shell.context.database) as connection:
        stable = lineage.adapter_by_digest(connection, row.stable_digest)
    label = stable.label if stable else "The base model"
    return shell.redirect(f"/adapters/{row.alias}", f"{label} {words.format(alias=row.alias)}")


def _words(shell: Shell) -> dict[str, object]:
    return {
        "sentences": {
            "headline": versions.headline,
            "promote": versions.promote_sentence,
            "rollback": versions.rollback_sentence,
            "pin": versions.pin_sentence,
            "unpin": versions.unpin_sentence,
            "try": versions.try_sentence,
        },
        "settings": shell.context.settings,
        "shown": versions.LINE_SHOWN,
        "first_share": shell.context.settings.rollout_shares[0],
    }


def _headline(found: list[versions.Board]) -> str:
    serving = [board for board in found if board.rollout]
    if len(serving) == 1:
        return versions.headline(serving[0])
    if serving:
        trials = sum(1 for board in serving if board.candidate)
        return f"{len(serving)} aliases are served" + (
            f", {trials} with a version on trial" if trials else ""
        )
    return "The base model answers everything" if not found else "No version is live yet"


def _alias_values(
    shell: Shell, alias: str, first: str, second: str, traffic: Traffic
) -> dict[str, object]:
    now = shell.now()
    with reads(shell.context.database) as connection:
        found = replace(versions.board(connection, alias), traffic=traffic(connection, alias, now))
        if found.rollout is None and not found.versions:
            raise NotFoundError(
                f"There is no alias or adapter {clip(alias, 60)!r}.",
                hint="`whet adapters list` prints the versions there are.",
            )
        history = rollout_history(connection, alias, limit=_HISTORY)
        since = live_since(connection, found.rollout) if found.rollout else None
        arms = count_arms(connection, found.rollout) if found.rollout and found.candidate else {}
    policy = policy_of(shell.context)
    candidate, stable = arms.get("candidate", Counts()), arms.get("stable", Counts())
    labels = {version.adapter.digest: f"v{version.adapter.version}" for version in found.versions}
    labels[None] = "base"  # type: ignore[index]
    pair = _pair(found, first, second)
    paired = (
        find_paired(found.pairs, pair[0].adapter.digest, pair[1].adapter.digest) if pair else None
    )
    return {
        "board": found,
        "headline": versions.headline(found),
        "since": since,
        "history": history,
        "labels": labels,
        "next_step": decide(found.rollout, candidate, stable, policy, now).reason
        if found.rollout and found.candidate
        else "",
        "arms": (("candidate", candidate), ("stable", stable)) if found.candidate else (),
        "pair": pair,
        "paired": paired,
        "unpaired": versions.unpaired(*pair) if pair and paired is None else [],
        "recipe": versions.recipe_differences(pair[0].adapter, pair[1].adapter) if pair else [],
        **_words(shell),
    }


def _pair(
    found: versions.Board, first: str, second: str
) -> tuple[versions.Version, versions.Version] | None:
    """The two versions to compare: those asked for, else the candidate (or the newest) with the
    live one.
    """

    def named(text: str) -> versions.Version | None:
        return next(
            (
                version
                for version in found.versions
                if text and text in (f"v{version.adapter.version}", version.adapter.label)
            ),
            None,
        )

    one = named(first) or found.candidate or (found.versions[0] if found.versions else None)
    two = named(second) or found.live or (found.versions[1] if len(found.versions) > 1 else None)
    if one is two and not named(second):
        two = next((version for version in found.versions if version is not one), None)
    return (one, two) if one and two and one is not two else None


def read_traffic(
    connection: Connection, alias: str, now: int
) -> Mapping[str | None, VersionSummary]:
    """Read how the alias's versions do on its newest answers."""
    return summarise_versions(connection, alias, {}, now)


class PolledTraffic:
    """The same, read at most twice a minute however many pages follow an alias."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[float, Mapping[str | None, VersionSummary]]] = {}

    def read(
        self, connection: Connection, alias: str, now: int
    ) -> Mapping[str | None, VersionSummary]:
        """Return a summary that is at most half a minute old."""
        read_at, found = self._found.get(alias, (-math.inf, {}))
        if time.monotonic() - read_at > _POLLED_S:
            found = read_traffic(connection, alias, now)
            self._found[alias] = (time.monotonic(), found)
        return found


def _version_values(shell: Shell, name: str, number: int) -> dict[str, object]:
    with reads(shell.context.database) as connection:
        found = versions.board(connection, name)
        found = replace(found, traffic=read_traffic(connection, name, shell.now()))
        version = next(
            (
                item
                for item in found.versions
                if item.adapter.version == number and item.adapter.name == name
            ),
            None,
        )
        if version is None:
            raise NotFoundError(
                f"There is no version {name}@v{number}.",
                hint="It may have been removed: `whet adapters list` prints what there is.",
            )
        trail = lineage.lineage(connection, version.adapter)
        against = (
            lineage.adapter_by_digest(connection, version.evaluation["against_digest"])
            if version.evaluation
            else None
        )
    card = version.adapter.card or {}
    return {
        "board": found,
        "version": version,
        "trail": trail,
        "questions": {
            row["interaction_id"]: clip(reading.question(row["request"]), 90)
            for row in trail.conversations
        },
        "against": against.label if against else "the base",
        "headline": version_headline(version),
        "recipe": [
            (key, versions.in_words(value)) for key, value in (card.get("recipe") or {}).items()
        ],
        **_words(shell),
    }


def version_headline(version: versions.Version) -> str:
    label = version.adapter.label
    role = {
        "live": "is live",
        "candidate": f"is on trial with {100 * version.share:.0f} %",
        "previous": "was live before",
    }.get(version.role, "is not live")
    verdict = {
        "pass": "passed its gate",
        "fail": "did not pass its gate",
        "inconclusive": "left its gate undecided",
        "none": "was never judged",
    }[version.adapter.gate]
    return f"{label} {role} and {verdict}"
