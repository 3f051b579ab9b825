"""The page where answers are judged blind: nothing in it tells the versions apart, votes are kept
once, and what they come to stands where somebody promotes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from tests import builders
from tests.training.judging.test_opinion import sample
from tests.web import NOW, ConsoleClient, console_client, headline
from training.cli.evaluate import evaluate
from training.evaluation import ballots, report, votes
from training.evaluation.opinion import opinion
from whet.context import Context
from whet.database import reading, writing
from whet.registry import find_adapter
from whet.tables import answer_votes, evaluations

EVIL = "<script>alert(1)</script><b class=x>"


def stored(
    context: Context,
    samples: list[dict[str, Any]],
    *,
    base: dict[str, Any] | None = None,
    name: str = "x",
) -> str:
    """An evaluation of support@v2 against support@v1 with these answers."""
    path = f"evaluations/{name}/samples.jsonl"
    context.store.put_folder(
        f"evaluations/{name}",
        lambda folder: (folder / "samples.jsonl").write_text("\n".join(map(json.dumps, samples))),
    )
    if base is not None:
        context.store.put_json(f"evaluations/{name}/base.json", base)
    with writing(context.database) as connection:
        data = builders.add_dataset(connection, NOW)
        one, two = (builders.add_adapter(connection, NOW, version=version) for version in (1, 2))
        return builders.add_evaluation(
            connection, NOW, adapter=two, against=one, dataset=data, samples_path=path
        )


def rows_of(context: Context) -> list[Any]:
    with reading(context.database) as connection:
        return list(connection.execute(select(answer_votes).order_by(answer_votes.c.row_id)))


def people(context: Context, evaluation: str) -> Any:
    with reading(context.database) as connection:
        return connection.execute(
            select(evaluations.c.people).where(evaluations.c.id == evaluation)
        ).scalar_one()


def reviewer(context: Context) -> ConsoleClient:
    return console_client(context, "reviewer", clock=lambda: NOW)


def place_of(page: str, text: str) -> str:
    """The number to send for the answer with this text."""
    found = re.findall(
        r'<section class="card compare-answer"(.*?)<button name="choice" value="(\d)"', page, re.S
    )
    return next(value for shown, value in found if text in shown)


# --- blind ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_base", [False, True])
def test_nothing_in_the_page_tells_the_versions_apart(
    sqlite_context: Context, with_base: bool
) -> None:
    """The same page with the two versions' answers swapped is the same to the byte, but for the
    texts, which change places.
    """
    base = (
        {
            f"r-{number}": {"text": f"THIRD {number}", "score": {"correct": 0.0, "f1": 0.0}}
            for number in range(6)
        }
        if with_base
        else None
    )
    samples = []
    for number in range(6):
        one = sample(number, ours=number % 2 == 0)
        one["candidate"]["text"], one["against"]["text"] = f"FIRST {number}", f"SECOND {number}"
        samples.append(one)
    evaluation = stored(sqlite_context, samples, base=base)
    client = reviewer(sqlite_context)

    def pages() -> list[str]:
        address = f"/evaluations/{evaluation}/compare"
        return [
            client.get(path).text
            for path in (
                address,
                *(f"{address}/part?row=r-{number}" for number in range(6)),
                *(f"{address}?row=r-{number}" for number in range(6)),
            )
        ]

    before = pages()
    swapped = [{**one, "candidate": one["against"], "against": one["candidate"]} for one in samples]
    (sqlite_context.store.local_folder("evaluations/x") / "samples.jsonl").write_text(
        "\n".join(map(json.dumps, swapped))
    )
    after = pages()
    assert before != after, "the answers changed places"
    exchange = {"FIRST": "SECOND", "SECOND": "FIRST"}
    assert [
        re.sub("FIRST|SECOND", lambda found: exchange[found[0]], page) for page in before
    ] == after
    told = (
        "candidate",
        "against",
        "production",
        "support@",
        r"\bv1\b",
        r"\bv2\b",
        builders.digest("support", 1)[:8],
        builders.digest("support", 2)[:8],
    )
    for page in before:
        content = page.split('<div id="stage"')[-1].split("<script src")[0]
        assert not [word for word in told if re.search(word, content)]
    assert all("THIRD" in page for page in before) is with_base


def test_the_page_shows_the_order_of_this_installations_secret(sqlite_context: Context) -> None:
    samples = [sample(number) for number in range(20)]
    evaluation = stored(sqlite_context, samples)
    client = reviewer(sqlite_context)
    shown = [
        place_of(
            client.get(f"/evaluations/{evaluation}/compare/part?row=r-{number}").text, "of ours"
        )
        for number in range(20)
    ]

    def places(secret: bytes) -> list[str]:
        return [
            str(
                votes.places(one, voter="reviewer", evaluation=evaluation, secret=secret).index(
                    "candidate"
                )
                + 1
            )
            for one in samples
        ]

    assert shown == places(sqlite_context.secret) != places(bytes(32))


def test_texts_of_models_are_texts(sqlite_context: Context) -> None:
    one = sample(1)
    one["candidate"]["text"], one["against"]["text"], one["reference"], one["id"] = (
        EVIL,
        EVIL + "2",
        EVIL + "3",
        "r-'\"<i>&/?",
    )
    one["prompt"] = [{"role": "user", "content": EVIL}]
    evaluation = stored(sqlite_context, [one])
    client = reviewer(sqlite_context)
    page = client.get(f"/evaluations/{evaluation}/compare").text
    assert (
        "alert(1)" in page
        and "<script>alert" not in page
        and "<b class=x>" not in page
        and "<i>" not in page
    )
    assert (
        client.post(
            f"/evaluations/{evaluation}/compare", data={"row": one["id"], "choice": "1"}
        ).status_code
        == 303
    )
    assert [row.row_id for row in rows_of(sqlite_context)] == [one["id"]]


# --- votes ------------------------------------------------------------------------------------------------------------


def test_a_vote_is_kept_under_the_version_that_stood_there_and_a_second_one_replaces_it(
    context: Context,
) -> None:
    evaluation = stored(context, [sample(1), sample(2)])
    client, address = reviewer(context), f"/evaluations/{evaluation}/compare"
    nobody = client.get(f"/evaluations/{evaluation}/votes").text
    assert nobody.count("Nobody has voted yet") == 1, (
        "the headline says it, and what to do stands below"
    )
    assert "Whoever is a reviewer may vote" in nobody
    page = client.get(f"{address}?row=r-1").text
    answer = client.post(address, data={"row": "r-1", "choice": place_of(page, "of theirs")})
    assert (answer.status_code, answer.headers["location"]) == (303, address)
    (row,) = rows_of(context)
    assert (row.evaluation_id, row.row_id, row.voter, row.choice, sorted(row.places)) == (
        evaluation,
        "r-1",
        "reviewer",
        "against",
        ["against", "candidate"],
    )
    following = client.get(address).text
    assert (
        'data-shown="r-2"' in following
        and "<span data-progress>1</span> of 2 that differ" in following
    )
    client.post(address, data={"row": "r-1", "choice": place_of(page, "of ours")})
    (row,) = rows_of(context)
    assert row.choice == "candidate" and people(context, evaluation)["voted"] == 1
    assert (
        'value="' + place_of(page, "of ours") + '" aria-pressed="true"'
        in client.get(f"{address}?row=r-1").text
    )


def test_an_undo_deletes_ones_own_vote_alone(context: Context) -> None:
    evaluation = stored(context, [sample(1)])
    client, address = reviewer(context), f"/evaluations/{evaluation}/compare"
    other = console_client(context, "operator", app=client.app)
    assert client.post(
        address, data={"row": "r-1", "choice": "tie"}, headers={"accept": "application/json"}
    ).json() == {"voted": 1, "of": 1}
    assert other.post(f"{address}/undo", data={"row": "r-1"}).status_code == 404, (
        "somebody else's vote"
    )
    assert len(rows_of(context)) == 1
    assert headline(client.get(address).text) == "You have voted on every row that differs"
    assert (
        client.post(f"{address}/undo", data={"row": "r-1"}).headers["location"]
        == f"{address}?row=r-1"
    )
    assert rows_of(context) == [] and people(context, evaluation) is None


def test_what_cannot_be_voted_on_is_refused(sqlite_context: Context) -> None:
    alike = sample(2)
    alike["against"] = alike["candidate"]
    evaluation = stored(sqlite_context, [sample(1), alike])
    client, address = reviewer(sqlite_context), f"/evaluations/{evaluation}/compare"
    assert client.post(address, data={"row": "r-99", "choice": "1"}).status_code == 404
    assert "alike" in client.post(address, data={"row": "r-2", "choice": "1"}).text
    assert client.post(address, data={"row": "r-1", "choice": "candidate"}).status_code == 400
    assert client.post(address, data={"row": "r-1", "choice": "3"}).status_code == 400, (
        "two answers are shown"
    )
    assert (
        client.post("/evaluations/evl_none/compare", data={"row": "r-1", "choice": "1"}).status_code
        == 404
    )
    assert (
        client.post(
            address, data={"row": "r-1", "choice": "1"}, headers={"x-csrf-token": None}
        ).status_code
        == 403
    )
    viewer = console_client(sqlite_context, "viewer", app=client.app)
    assert (
        viewer.get(address).status_code == 403
        and viewer.get(f"/evaluations/{evaluation}/votes").status_code == 200
    )
    assert rows_of(sqlite_context) == []


def test_an_evaluation_with_equal_answers_asks_for_nobody(sqlite_context: Context) -> None:
    one = sample(1)
    one["against"] = one["candidate"]
    page = (
        reviewer(sqlite_context).get(f"/evaluations/{stored(sqlite_context, [one])}/compare").text
    )
    assert headline(page) == "Nothing to compare" and "there is nothing to vote on" in page


# --- where votes count ------------------------------------------------------------------------------------------------


def test_a_preference_against_a_version_stands_where_it_is_promoted(
    sqlite_context: Context,
) -> None:
    evaluation = stored(sqlite_context, [sample(number) for number in range(15)])
    client = console_client(sqlite_context, "operator", clock=lambda: NOW)
    case = ballots.case_of(sqlite_context, evaluation)
    for number in range(15):
        page = client.get(f"/evaluations/{evaluation}/compare/part?row=r-{number}").text
        ballots.vote(
            sqlite_context, case, "operator", f"r-{number}", place_of(page, "of theirs"), now=NOW
        )
    said = (
        "People who did not know which was which prefer support@v1&#39;s answers to"
        " support@v2&#39;s"
    )
    page = client.get("/adapters/support/v2").text
    assert page.count(said) >= 2, "beside the gate, and in the question before the deed"
    assert f'href="/evaluations/{evaluation}/compare"' in page
    result = client.get(f"/evaluations/{evaluation}/votes").text
    assert headline(result) == said and "15 votes of 1 person on 15 of the 15 rows" in result
    assert said in client.get(f"/evaluations/{evaluation}/compare").text, (
        "who has voted on everything sees the names"
    )


def test_votes_stay_with_the_answers_when_somebody_signs_for_the_version(
    sqlite_context: Context,
) -> None:
    evaluation = stored(sqlite_context, [sample(1), sample(2)])
    case = ballots.case_of(sqlite_context, evaluation)
    ballots.vote(sqlite_context, case, "ada", "r-1", "tie", now=NOW)
    with writing(sqlite_context.database) as connection:
        signed = builders.add_evaluation(
            connection,
            NOW + 5,
            adapter=case.adapter_digest,
            dataset="d",
            samples_path=case.samples_path,
            verdict="signed",
            people={"verdict": "", "sentence": "", "voted": 1},
        )
    ballots.vote(
        sqlite_context, ballots.case_of(sqlite_context, signed), "ada", "r-2", "none", now=NOW + 6
    )
    assert {row.evaluation_id for row in rows_of(sqlite_context)} == {evaluation}
    assert (
        people(sqlite_context, signed) == people(sqlite_context, evaluation)
        and people(sqlite_context, signed)["voted"] == 2
    )


def test_votes_and_the_judges_agreement_with_them_join_the_report(
    sqlite_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = stored(sqlite_context, [sample(number) for number in range(12)])
    context, case = sqlite_context, ballots.case_of(sqlite_context, evaluation)
    probes = {"forgetting": [], "bias": [], "safety": [], "refused_by_category": {}}
    found = {
        "format": 1,
        "against": "support@v1",
        "base": "the base",
        "gate": {"verdict": "pass", "reason": "Better."},
        "measures": {},
        "probes": probes,
    }
    context.store.put_json("evaluations/x/report.json", found)
    with reading(context.database) as connection:
        adapter = find_adapter(connection, "support@v2")
    assert "votes" not in report.stored_report(context, adapter), "nobody has voted"
    for number in range(12):
        order = votes.places(
            case.samples[number], voter="ada", evaluation=evaluation, secret=context.secret
        )
        ballots.vote(context, case, "ada", f"r-{number}", str(order.index("against") + 1), now=NOW)
    judge = {"endpoint": "nowhere", "model": "judge"}
    opinion(
        context,
        adapter,
        lambda messages: '{"winner": "tie"}',
        judge=judge,
        limit=6,
        people=ballots.people_say(context, case),
    )
    seen = report.stored_report(context, adapter)
    assert seen["votes"]["verdict"] == "worse" and seen["votes"]["judge"] == {
        "n": 6,
        "same": 0,
        "kappa": None,
    }
    assert "what people's votes say on 0 of 6 rows" in seen["opinion"]["sentence"]
    page = report.html(seen)
    assert (
        page.index("prefer support@v1&#39;s answers") < page.index("Forgetting")
        and "What people say who compared blind" in page
    )
    assert "The judge says what people say on 0 of 6 rows" in page

    @contextmanager
    def here() -> Iterator[Context]:
        yield context

    monkeypatch.setattr("training.commands.judgements.opened", here)
    runner = CliRunner()
    told = json.loads(runner.invoke(evaluate, ["votes", "support@v2", "--json"]).stdout)
    assert told == seen["votes"] and told["pairs"]["against"]["losses"] == 12
    for command in ("votes", "report"):
        said = " ".join(runner.invoke(evaluate, [command, "support@v2"]).stdout.split())
        assert "prefer support@v1's answers to support@v2's" in said, command
