"""Log-probabilities asked of the engine after the answers: each answer once, only what can be
scored, into the days; an adapter without effect is found.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, insert, select, update

from monitoring.alert_store import list_alerts
from monitoring.days import DAY_MS, read_day, rows_of_day
from monitoring.detector.settings import DetectorSettings
from monitoring.incident_actions import change_state
from monitoring.scores import (
    HOUR_MS,
    LEAST_COMPARED,
    _answer_part,
    answered,
    run_scores,
    without_effect,
)
from tests import builders
from tests.monitoring.build import NOW, insert_records, records
from whet.context import Context
from whet.database import reading, writing
from whet.errors import EngineError
from whet.settings import load_settings
from whet.tables import alerts, answer_scores, interactions, replicas

PROMPT = 20


class Engine:
    """Answers as an engine does: `effect` is what the version adds to each token's log-probability."""

    def __init__(self, effect: float = 1.0) -> None:
        self.effect, self.asked = effect, list[tuple[str, list[dict[str, str]]]]()

    def __call__(self, url: str, name: str, messages: list[dict[str, str]]) -> list[float | None]:
        self.asked.append((name, messages))
        tokens = [-2.0 + (0.0 if name == "the-base" else self.effect)] * 10
        return [None, *[-9.0] * (PROMPT - 1), *tokens]


@pytest.fixture
def live(context: Context) -> Context:
    """`support@v1` is live and ready on one replica, and has answered 40 questions in the last
    hour.
    """
    with writing(context.database) as connection:
        digest = builders.add_adapter(connection, NOW - DAY_MS)
        builders.add_rollout(connection, NOW - DAY_MS, stable=digest)
        names = {digest: {"engine_name": "support--v1"}, "base": {"engine_name": "the-base"}}
        connection.execute(
            insert(replicas).values(
                url="http://engine", state="ready", ready=names, refused={}, seen_at=NOW
            )
        )
    made = records(40, 1, start_at=NOW - 40 * 60_000, step_ms=60_000 - 1, digest=digest)
    insert_records(
        context, [{**row, "prompt_tokens": PROMPT, "completion_tokens": 10} for row in made]
    )
    return context


def scores(context: Context) -> list[Any]:
    with reading(context.database) as connection:
        return list(connection.execute(select(answer_scores)))


def often(context: Context, per_hour: int) -> Context:
    settings = load_settings(
        home=context.settings.home,
        database_url=context.settings.database_url,
        scores_per_hour=per_hour,
    )
    return Context(settings, context.database, context.store)


def test_answers_are_scored_once_each_by_the_version_and_by_its_base(live: Context) -> None:
    engine = Engine()
    assert run_scores(live, NOW, ask=engine) == "support: 1 scored", "60 an hour are one a minute"
    assert run_scores(often(live, 3600), NOW, ask=engine) == "support: 39 scored"
    assert run_scores(often(live, 3600), NOW, ask=engine) is None, "everything has its score"
    found = scores(live)
    assert {(row.logprob, row.logprob_min, row.base_logprob, row.tokens) for row in found} == {
        (-1.0, -1.0, -2.0, 10)
    }
    assert len(engine.asked) == 80
    _, messages = engine.asked[0]
    assert [turn["role"] for turn in messages] == [
        "system",
        "user",
        "assistant",
    ], "the answer is read as part of the conversation"


def test_nothing_is_asked_for_when_it_is_switched_off(live: Context) -> None:
    engine = Engine()
    assert run_scores(often(live, 0), NOW, ask=engine) is None and engine.asked == []


def test_the_sample_is_random_and_not_the_newest(live: Context) -> None:
    run_scores(often(live, 600), NOW, ask=Engine())
    with reading(live.database) as connection:
        newest = set(
            connection.scalars(
                select(interactions.c.id).order_by(interactions.c.created_at.desc()).limit(10)
            )
        )
    assert len(scores(live)) == 10 and {row.interaction_id for row in scores(live)} != newest


@pytest.mark.parametrize(
    "change",
    [
        {"status": "cut"},
        {"route": "completions"},
        {"adapter_digest": None},
        {"completion_tokens": 0},
        {"created_at": NOW - 2 * HOUR_MS},
        {"created_at": NOW - 1000},
    ],
)
def test_what_is_not_a_whole_recent_answer_of_an_adapter_is_left_alone(
    live: Context, change: dict[str, Any]
) -> None:
    with writing(live.database) as connection:
        connection.execute(update(interactions).values(**change))
    engine = Engine()
    assert run_scores(often(live, 3600), NOW, ask=engine) is None and engine.asked == []


def test_only_plain_conversations_can_be_scored() -> None:
    plain = builders.interaction_row(NOW)
    asked = plain["request"]["messages"]
    assert answered(plain) is not None
    for request in (
        {"messages": [*asked, {"role": "assistant", "content": "begun"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
        {"messages": [{"role": "assistant", "tool_calls": []}, *asked]},
        {"messages": asked, "tools": [{}]},
        {"messages": asked, "response_format": {"type": "json_object"}},
        {"messages": "x"},
        {"messages": []},
        {},
        None,
    ):
        assert answered({**plain, "request": request}) is None, request
    assert answered({**plain, "response_text": ""}) is None
    for messages in (
        [*asked, {"role": "assistant", "content": "", "tool_calls": [{"id": "c"}]}, asked[-1]],
        [{"role": "tool", "content": "ok", "tool_call_id": "c"}, *asked],
    ):
        found = answered({**plain, "request": {"messages": messages}})
        assert found is None, "a call of a tool must not be dropped from what is scored"
    thinking = {"messages": asked, "chat_template_kwargs": {"enable_thinking": False}}
    assert answered({**plain, "request": thinking}) is None, "its prompt was another one"


@pytest.mark.parametrize("stored", ["It lasts 48 months.", " 48 months."])
def test_a_continued_answer_is_scored_as_one_assistant_message(stored: str) -> None:
    """Also of an older row, whose text lacks the beginning that the client gave."""
    plain = builders.interaction_row(NOW)
    asked = plain["request"]["messages"]
    messages = [*asked, {"role": "assistant", "content": "It lasts"}]
    row = {
        **plain,
        "request": {"messages": messages, "continue_final_message": True},
        "response": {"role": "assistant", "content": " 48 months."},
        "response_text": stored,
        "prompt_tokens": PROMPT,
    }
    found = answered(row)
    assert found is not None
    whole = {"role": "assistant", "content": "It lasts 48 months."}
    assert found.messages == [*asked, whole]
    assert found.prompt_tokens == PROMPT, "the beginning counts as prompt, and is not scored"
    assert answered({**plain, "prompt_tokens": None}) is None


def test_an_engine_that_cannot_score_a_conversation_is_not_asked_again_and_one_that_is_away_is(
    live: Context,
) -> None:
    assert run_scores(live, NOW, ask=lambda *_: []) is None
    assert [row.logprob for row in scores(live)] == [None]
    with writing(live.database) as connection:
        connection.execute(delete(answer_scores))

    def away(*_: Any) -> list[float | None]:
        raise EngineError("The engine at http://engine did not score an answer.")

    with pytest.raises(EngineError):
        run_scores(live, NOW, ask=away)
    assert scores(live) == []
    with writing(live.database) as connection:
        connection.execute(update(replicas).values(ready={"base": {"engine_name": "the-base"}}))
    assert run_scores(live, NOW, ask=Engine()) is None and scores(live) == [], (
        "a version that no engine has waits"
    )


def test_the_answer_is_what_stands_after_the_prompt() -> None:
    assert _answer_part([None, -1.0, -2.0, -3.0], 2) == [-2.0, -3.0]
    assert _answer_part([None, -1.0], 5) == []


def test_scores_become_signals_of_the_day_and_every_scored_answer_is_in_it(live: Context) -> None:
    run_scores(often(live, 600), NOW, ask=Engine())
    with reading(live.database) as connection:
        days = {row.created_at // DAY_MS for row in scores(live)}
        tables = [
            read_day(
                connection,
                "support",
                day,
                rows_of_day(connection, "support", day),
                DetectorSettings(),
                b"s" * 32,
            )
            for day in days
        ]
    assert sum(int(np.isfinite(table.columns["logprob"]).sum()) for table in tables) == 10
    assert all(np.nanmax(table.columns["logprob"]) == -1.0 for table in tables)


# --- an adapter without effect -------------------------------------------------------------------------------------


def test_a_version_is_without_effect_when_every_answer_is_as_likely_from_the_base() -> None:
    same = [(-1.0, -1.0 + 0.002 * (-1) ** n) for n in range(LEAST_COMPARED)]
    assert without_effect(same) is True
    assert without_effect(same[1:]) is None, "too few"
    assert without_effect([*same, (-0.5, -1.5)]) is False, "one answer with an effect is an effect"


def open_alerts(context: Context) -> list[dict[str, Any]]:
    with reading(context.database) as connection:
        return [
            alert.as_json()
            for alert in list_alerts(connection, "support", only_open=True)
            if alert.kind == "adapter"
        ]


def test_an_adapter_without_effect_opens_one_incident_and_another_version_closes_it(
    live: Context,
) -> None:
    hour = often(live, 3600)
    run_scores(hour, NOW, ask=Engine(effect=0.001))
    run_scores(hour, NOW + 60_000, ask=Engine(effect=0.001))
    (alert,) = open_alerts(live)
    assert alert["severity"] == "bad" and "support@v1 changes nothing" in alert["title"]
    assert len(alert["detail"]["interaction_ids"]) >= LEAST_COMPARED
    with writing(live.database) as connection:
        second = builders.add_adapter(connection, NOW, version=2)
        builders.add_rollout(connection, NOW, generation=2, stable=second)
    run_scores(hour, NOW + 120_000, ask=Engine())
    assert open_alerts(live) == []
    with reading(live.database) as connection:
        assert connection.execute(select(alerts.c.state)).scalars().all() == ["resolved"]


def test_what_a_person_resolved_is_not_opened_again(live: Context) -> None:
    hour = often(live, 3600)
    run_scores(hour, NOW, ask=Engine(effect=0.001))
    (alert,) = open_alerts(live)
    change_state(live, alert["id"], "resolved", actor="ada", now=NOW)
    run_scores(hour, NOW + 60_000, ask=Engine(effect=0.001))
    assert open_alerts(live) == [], "an alarm that comes back every minute is muted"


def test_an_adapter_that_works_is_left_alone(live: Context) -> None:
    run_scores(often(live, 3600), NOW, ask=Engine(effect=0.5))
    assert open_alerts(live) == []
