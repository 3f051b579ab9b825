"""`whet replay --matrix` against a gateway: what it asks, keeps, prints, and survives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import delete, insert, select, update
from typer import Typer
from typer.testing import CliRunner

from serving import cli
from serving.blame.blame_store import get_verdict
from serving.blame.matrix import run_matrix
from serving.blame.records import Case, Fault, Question, Report, Review, Trace, Who
from serving.blame.run import Options, blame_answer
from serving.retrieval.records import Hit, Outcome, SearchRequest, SearchResult
from tests.serving.conftest import Running, wait_for
from tests.serving.memory_searcher import CitingEngine, MemorySearcher, hit, serve_with
from tests.web import console_client
from whet.clock import now_ms
from whet.context import Context, open_context
from whet.database import reading, writing
from whet.errors import EngineError, EngineUnavailableError
from whet.settings import load_settings
from whet.tables import adapters, api_keys, blame_verdicts, interactions, reviews

ASKED: list[Any] = [{"role": "user", "content": "How many months are lamps kept?"}]
LAMPS = hit(1, "Lamps are kept 24 months.")
KETTLES = hit(2, "Kettles are kept 12 months.")
TEA = hit(5, "Kettles are for tea.")
OTHER_LAMPS = hit(3, "All lamps are kept for 24 months.")
WRONG_LAMPS = hit(4, "How many months are lamps kept? Lamps are kept 12 months.")
BODY = {"model": "support", "messages": ASKED, "rag": {"collection": "manual"}, "temperature": 0}
RIGHT = "They are kept 24 months."


class ReadingEngine(CitingEngine):
    """The base reads a passage on lamps, the adapter says 12 months."""

    def _text(self, body: dict[str, Any]) -> list[str]:
        text = json.dumps(body.get("messages") or body.get("instructions") or "")
        is_read = body["model"].startswith("base") and "24 months" in text
        return ["They are kept ", "24" if is_read else "12", " months."]


@pytest.fixture
def searcher() -> MemorySearcher:
    return MemorySearcher([LAMPS, KETTLES])


@pytest.fixture
def engine() -> Iterator[ReadingEngine]:
    with ReadingEngine() as running:
        yield running


@pytest.fixture
def running(searcher: MemorySearcher, engine: ReadingEngine, tmp_path: Path) -> Iterator[Running]:
    yield from serve_with(searcher, tmp_path / "home", engine)


@pytest.fixture
def context(running: Running) -> Iterator[Context]:
    home = running.context.settings.home
    opened = open_context(load_settings(home=home, gateway_port=running.port))
    yield opened
    opened.close()


def answered(running: Running, **changes: Any) -> str:
    """Ask for an answer and have it corrected; returns its id."""
    response = running.client().chat.completions.with_raw_response.create(
        **{"model": "support", "messages": ASKED, "temperature": 0, "stream": False},
        extra_body={"rag": BODY["rag"]}, **changes,
    )  # fmt: skip
    interaction_id = response.headers["x-whet-interaction-id"]
    running.row(interaction_id)
    return correct(running, interaction_id)


def correct(running: Running, interaction_id: str, answer: str = RIGHT) -> str:
    with writing(running.context.database) as connection:
        connection.execute(
            insert(reviews).values(
                id=f"rev_{interaction_id[-20:]}", item_id=interaction_id, answer=answer,
                interaction_id=interaction_id, reviewer="anna", decision="edit", created_at=1,
                standing=interaction_id,
            )
        )  # fmt: skip
    return interaction_id


def blame(
    context: Context, running: Running, interaction_id: str, searcher: MemorySearcher, **more: Any
) -> Report:
    def search(request: SearchRequest) -> SearchResult:
        found = [each for each in searcher.hits if each.collection == request.collection]
        outcome = Outcome.FOUND if found else Outcome.FORBIDDEN
        return SearchResult(outcome=outcome, hits=found[: request.top_k])

    return blame_answer(
        context, interaction_id, search, key=running.key, actor="tests", now=now_ms(),
        options=Options(**more),
    )  # fmt: skip


def test_the_adapter_is_named_and_the_verdict_kept(
    context: Context, running: Running, searcher: MemorySearcher, engine: ReadingEngine
) -> None:
    interaction_id = answered(running)
    then = engine.seen[-1]["messages"]
    report = blame(context, running, interaction_id, searcher)
    assert (report.verdict.fault, report.verdict.detail) == (Fault.ADAPTER, "contradicts")
    reproduced = report.evidence.cell(Question.REPRODUCE, Who.THEN)
    assert reproduced is not None and reproduced.samples[0].text == "They are kept 12 months."
    assert then in [body["messages"] for body in engine.seen[1:]]
    with reading(context.database) as connection:
        kept = get_verdict(connection, interaction_id)
        replayed = connection.execute(
            select(interactions.c.alias).where(interactions.c.id != interaction_id)
        ).scalars()
        assert set(replayed) <= {None}  # no alias's traffic is changed by it
    assert kept is not None and (kept.fault, kept.alias) == ("adapter", "support")
    blame(context, running, interaction_id, searcher)
    with reading(context.database) as connection:
        assert len(connection.execute(select(blame_verdicts)).all()) == 1


def test_a_streamed_answer_is_judged_like_another(
    context: Context, running: Running, searcher: MemorySearcher
) -> None:
    stream = running.client().chat.completions.create(
        model="support", messages=ASKED, temperature=0, stream=True,
        extra_body={"rag": BODY["rag"]},
    )  # fmt: skip
    assert list(stream)
    (row,) = wait_for(running.rows, "the row")
    assert row.stream
    report = blame(context, running, correct(running, row.id), searcher)
    assert report.verdict.fault is Fault.ADAPTER


def test_a_version_that_is_removed_is_said(
    context: Context, running: Running, searcher: MemorySearcher
) -> None:
    interaction_id = answered(running)
    with writing(running.context.database) as connection:
        connection.execute(update(adapters).values(removed_at=1))
    verdict = blame(context, running, interaction_id, searcher).verdict
    assert (verdict.fault, verdict.detail) == (Fault.UNKNOWN, "version_removed")
    assert "support@v1" in verdict.reason and "place 1" in verdict.notes[0]


def test_a_collection_that_is_gone_leaves_the_logged_passages(
    context: Context, running: Running, searcher: MemorySearcher
) -> None:
    interaction_id = answered(running)
    searcher.hits = []
    report = blame(context, running, interaction_id, searcher)
    assert report.verdict.fault is Fault.ADAPTER
    assert report.evidence.lookup.right is not None and not report.evidence.lookup.is_searched


def test_without_retrieval_says_what_is_left(
    context: Context, running: Running, searcher: MemorySearcher
) -> None:
    response = running.client().chat.completions.with_raw_response.create(
        model="support", messages=ASKED, temperature=0
    )
    interaction_id = response.headers["x-whet-interaction-id"]
    running.row(interaction_id)
    verdict = blame(context, running, correct(running, interaction_id), searcher).verdict
    assert (verdict.fault, verdict.detail) == (Fault.UNKNOWN, "without_retrieval")


def test_a_picked_passage_that_is_gone_is_said(
    context: Context, running: Running, searcher: MemorySearcher
) -> None:
    interaction_id = answered(running)
    report = blame(context, running, interaction_id, searcher, passage="psg_none")
    assert "psg_none" in report.evidence.lookup.problem
    searcher.hits = []
    picked = blame(context, running, interaction_id, searcher, passage=LAMPS.passage_id)
    assert picked.evidence.lookup.right is not None
    assert picked.evidence.lookup.right.how == "picked"


@pytest.mark.parametrize(
    ("verdict", "named", "right", "how", "fault"),
    [
        # What the review says of a passage goes before what is read in it.
        ("ignored", TEA, TEA, "reviewed", (Fault.ADAPTER, "contradicts")),
        ("missing", None, OTHER_LAMPS, "found", (Fault.ADAPTER, "contradicts")),
        ("wrong", LAMPS, OTHER_LAMPS, "found", (Fault.ADAPTER, "contradicts")),
        ("wrong", WRONG_LAMPS, LAMPS, "logged", (Fault.DOCUMENT, "wrong")),
        (None, None, LAMPS, "logged", (Fault.UNKNOWN, "documents_disagree")),
    ],
)
def test_what_the_review_says_of_passages_is_followed(
    context: Context,
    running: Running,
    searcher: MemorySearcher,
    verdict: str | None,
    named: Hit | None,
    right: Hit,
    how: str,
    fault: tuple[Fault, str],
) -> None:
    searcher.hits = [LAMPS, TEA]
    if named is WRONG_LAMPS or verdict is None:
        searcher.hits.append(WRONG_LAMPS)
    interaction_id = answered(running)
    ids = [named.passage_id] if named else None
    with writing(context.database) as connection:
        connection.execute(update(reviews).values(passage_verdict=verdict, passage_ids=ids))
    searcher.hits.append(OTHER_LAMPS)
    report = blame(context, running, interaction_id, searcher)
    found = report.evidence.lookup.right
    assert found is not None and (found.hit.passage_id, found.how) == (right.passage_id, how)
    assert (report.verdict.fault, report.verdict.detail) == fault
    alone = report.evidence.cell(Question.ALONE, Who.THEN)
    assert alone is not None, "the right passage is forced in"
    picked = blame(context, running, interaction_id, searcher, passage=OTHER_LAMPS.passage_id)
    assert picked.evidence.lookup.right is not None
    assert picked.evidence.lookup.right.how == "picked", "the command goes before the review"


def command(running: Running, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.setenv("WHET_HOME", str(running.context.settings.home))
    monkeypatch.setenv("WHET_GATEWAY_PORT", str(running.port))
    monkeypatch.setenv("WHET_RETRIEVAL_URL", "http://127.0.0.1:9")
    app = Typer()
    app.command()(cli.replay)
    return CliRunner().invoke(app, list(arguments))


def test_the_command_prints_the_matrix_and_counts_verdicts(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    interaction_id = answered(running)
    shown = command(running, interaction_id, "--matrix", monkeypatch=monkeypatch)
    assert shown.exit_code == 0, shown.output
    assert "adapter (contradicts)" in shown.output and "the right passage alone" in shown.output
    given = command(
        running, interaction_id, "--matrix", "--answer", "Kept 12 months.", "--json",
        monkeypatch=monkeypatch,
    )  # fmt: skip
    assert json.loads(given.stdout)["fault"] == "none"
    with writing(running.context.database) as connection:
        connection.execute(delete(blame_verdicts))
    batch = command(running, "--matrix", "--alias", "support", "--json", monkeypatch=monkeypatch)
    assert json.loads(batch.stdout)["new"] == {"adapter": 1}
    again = command(running, "--matrix", "--alias", "support", "--json", monkeypatch=monkeypatch)
    found = json.loads(again.stdout)
    assert (found["judged"], found["all"]) == ([], {"adapter": 1})
    for wrong in (
        ["--matrix"],
        ["--matrix", "x", "--model", "base"],
        ["--matrix", "--alias", "no"],
    ):
        assert command(running, *wrong, monkeypatch=monkeypatch).exception is not None
    with reading(running.context.database) as connection:
        made = select(api_keys).where(api_keys.c.name == "replay-matrix")
        assert all(key.revoked_at for key in connection.execute(made))


def test_without_a_gateway_it_says_so(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    interaction_id = answered(running)
    monkeypatch.setattr(running, "port", 9)
    shown = command(running, interaction_id, "--matrix", "--json", monkeypatch=monkeypatch)
    found = json.loads(shown.stdout)
    assert (found["fault"], found["detail"]) == ("unknown", "engine")
    assert "cannot be reached" in found["reason"]


def test_the_button_runs_it_in_the_background_and_the_page_shows_it(
    context: Context, running: Running
) -> None:
    interaction_id = answered(running)
    reviewer, viewer = console_client(context, "reviewer"), console_client(context, "viewer")
    page = f"/traffic/{interaction_id}"
    assert "Find what was at fault" in reviewer.get(page).text
    assert "Find what was at fault" not in viewer.get(page).text
    assert viewer.post(f"{page}/blame").status_code == 403
    assert reviewer.post(f"{page}/blame").headers["location"] == f"{page}#blame"

    def part() -> str | None:
        found = reviewer.get(f"{page}/blame")
        return found.text if found.headers.get("x-live") == "done" else None

    shown = wait_for(part, "the verdict", timeout_s=30)
    assert "adapter (contradicts)" in shown and "the right passage alone" in shown
    assert "looked into" in viewer.get(page).text


# --- without a gateway -----------------------------------------------------------------------------


def case(**changes: Any) -> Case:
    values: dict[str, Any] = {
        "interaction_id": "int_1", "alias": "support", "route": "chat", "is_complete": True,
        "request": {"messages": ASKED, "temperature": 0}, "question": ASKED[0]["content"],
        "logged": "They are kept 12 months.", "created_at": 1, "then_label": "v1",
        "review": Review(id="rev_1", answer=RIGHT, reviewer="anna"),
        "trace": Trace(collection="manual", outcome="found", query=ASKED[0]["content"]),
        "passages": (KETTLES, LAMPS), "versions": {Who.BASE: "base", Who.THEN: "v1"},
    }  # fmt: skip
    return Case(**{**values, **changes})


def nothing_found(request: SearchRequest) -> SearchResult:
    return SearchResult(outcome=Outcome.EMPTY)


def no_passage(passage_id: str) -> tuple[Hit, Any] | None:
    return None


def test_a_cell_that_the_gateway_refuses_is_an_error_of_that_cell() -> None:
    def ask(model: str, route: str, body: dict[str, Any]) -> str:
        if model == "base" and "messages" in body and len(body["messages"]) == 1:
            raise EngineError("The gateway answered 404: no such model.")
        return RIGHT if model == "base" else "They are kept 12 months."

    report = run_matrix(case(), ask, nothing_found, no_passage)
    assert report.verdict.fault is Fault.ADAPTER
    assert [cell.error for cell in report.evidence.cells if cell.error]


def test_an_engine_that_goes_away_ends_the_matrix_with_what_is_known() -> None:
    asked = []

    def ask(model: str, route: str, body: dict[str, Any]) -> str:
        asked.append(model)
        if len(asked) > 2:
            raise EngineUnavailableError("The engine is gone.")
        return "They are kept 12 months."

    report = run_matrix(case(), ask, nothing_found, no_passage)
    assert (report.verdict.detail, len(asked)) == ("engine", 3)
    assert "was in the prompt at place 2" in report.verdict.notes[0]


def test_random_answers_are_sampled_where_they_decide() -> None:
    asked: list[str] = []

    def ask(model: str, route: str, body: dict[str, Any]) -> str:
        asked.append(model)
        is_alone = "[2]" not in str(body["messages"])
        odd = len(asked) % 2 == 0
        return RIGHT if is_alone and "24" in str(body["messages"]) and odd else "Kept 12 months."

    drawn = case(
        request={"messages": ASKED}, versions={Who.BASE: "base", Who.THEN: "base"},
        then_label="base",
    )  # fmt: skip
    report = run_matrix(drawn, ask, nothing_found, no_passage, samples=6)
    reproduced = report.evidence.cell(Question.REPRODUCE, Who.THEN)
    assert reproduced is not None and len(reproduced.samples) == 6
    assert report.verdict.fault in (Fault.UNKNOWN, Fault.BASE)
