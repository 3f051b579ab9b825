"""Augmented rows are marked, keep what the answer repeats and never come near a held-out row;
mixtures are weights, not copies.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.tiny import facts
from training.data.augment import augment, synonyms_from
from training.data.mix import MAX_WEIGHT, balance, by_hash, mix, rates, replay
from training.data.rewriting import rewriters
from training.data.rows import Row, read_lines
from training.data.similar import words
from training.endpoint import Endpoint
from whet.errors import EndpointError, InputError

HELLO = [{"role": "user", "content": "Hello"}]


def _rows(*objects: dict[str, Any]) -> list[Row]:
    reading = read_lines(json.dumps(each).encode() for each in objects)
    assert not reading.bad
    return reading.rows


def _row(question: str, answer: str, **fields: Any) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ],
        **fields,
    }


ASKED = "Please tell me how long the warranty of my Aurora lamp lasts, it is 7 months old."
SYNONYMS = {"tell": ["inform"], "lamp": ["light"], "please": ["kindly"]}


def test_balance_weighs_labels_and_leaves_longer_answers_of_their_task_to_the_task() -> None:
    labels = [_row(f"Number {number}?", "yes" if number % 4 else "no") for number in range(40)]
    free = [
        _row(f"Why {number}?", f"That is a long story of {number} chapters and more.")
        for number in range(10)
    ]
    made, classes, _ = balance(_rows(*labels, *free))
    assert len(made) == 50 and classes == {"(no task)": 1.0, ": no": 2.0, ": yes": 0.6667}


# --- augment --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["swap", "delete", "insert", "synonym"])
def test_new_rows_are_marked_and_keep_answer_names_and_numbers(method: str) -> None:
    (row,) = _rows(_row(ASKED, "Aurora: 24 months.", id="r1", checks=["24 months"], weight=2))
    made = augment([row], methods=[method], per_row=3, seed=1, synonyms=SYNONYMS)
    assert made.rows, made.skipped
    for new in made.rows:
        asked = new["messages"][0]["content"]
        assert asked != ASKED and new["messages"][1]["content"] == "Aurora: 24 months."
        assert {"aurora", "7", "months"} <= set(words(asked)), (
            "what the answer repeats and every number stay"
        )
        assert (new["origin"], new["parent"], new["made_by"], new["weight"]) == (
            "synthetic",
            "r1",
            method,
            2,
        )
    assert (
        augment([row], methods=[method], per_row=3, seed=1, synonyms=SYNONYMS).rows == made.rows
    ), "the same seed gives the same rows"
    assert not augment(
        _rows(*made.rows), methods=[method], per_row=1, seed=1, synonyms=SYNONYMS
    ).rows, "synthetic rows are no source"


def test_a_new_row_that_a_held_out_row_gives_away_is_left_out_and_listed() -> None:
    train = _rows(*[{**row, "group": f"g{number}"} for number, row in enumerate(facts(12))])
    held_out = _rows(_row("Something else entirely?", "Yes.", group="g3"))
    made = augment(train, methods=["swap", "delete"], per_row=2, seed=0, held_out=held_out)
    assert made.leaks and {leak.row.parent for leak in made.leaks} == {train[3].id}
    assert train[3].id not in {row["parent"] for row in made.rows} and made.rows


def test_synonyms_come_from_lines_or_json_and_a_wrong_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("# groups\nkettle, boiler\n\nbig, large, great\n")
    assert synonyms_from(tmp_path / "words.txt")["big"] == ["large", "great"]
    (tmp_path / "words.json").write_text('{"kettle": ["boiler"]}')
    assert synonyms_from(tmp_path / "words.json") == {"kettle": ["boiler"]}
    for name, content in (("empty.txt", ""), ("wrong.json", "[1]"), ("broken.json", "{")):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError):
            synonyms_from(tmp_path / name)


Answer = Callable[[dict[str, Any], int], tuple[int, Any, dict[str, str]]]


@contextmanager
def _server(answer: Answer) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(address, what was asked of it) of an endpoint on loopback; `answer` gets the request and its
    number.
    """
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append({**body, "key": self.headers.get("authorization"), "path": self.path})
            status, said, headers = answer(body, len(asked))
            content = json.dumps(said).encode()
            self.send_response(status)
            for name, value in {
                "content-type": "application/json",
                "content-length": str(len(content)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _completion(text: Any) -> dict[str, Any]:
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        ],
    }


def test_paraphrases_and_back_translations_come_from_the_endpoint_after_a_retry() -> None:
    def answer(body: dict[str, Any], number: int) -> tuple[int, Any, dict[str, str]]:
        if number == 1:
            return 503, {"error": {"message": "busy"}}, {"retry-after-ms": "1"}
        return (
            200,
            _completion(
                f"Variant {len(body['messages'][0]['content'])}: the Aurora warranty after 7"
                " months?"
            ),
            {},
        )

    (row,) = _rows(_row(ASKED, "Aurora: 24 months.", id="r1"))
    with _server(answer) as (url, asked):
        rewrite = rewriters(Endpoint(url, "m", "secret"), "German", "English")
        made = augment(
            [row], methods=["paraphrase", "back-translate"], per_row=2, seed=0, rewrite=rewrite
        )
    assert [new["made_by"] for new in made.rows] == ["paraphrase", "back-translate"]
    assert (
        len(asked) == 4
        and {each["key"] for each in asked} == {"Bearer secret"}
        and asked[0]["path"] == "/v1/chat/completions"
    )
    # Several at once: which comes first, and is asked again, is chance
    told = [each["messages"][0]["content"] for each in asked]
    languages = [
        language
        for text in told
        for language in ("German", "English")
        if f"into {language}" in text
    ]
    assert (languages[0], languages[-1]) == ("German", "English")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Is it covered?", "lost a word"),
        (ASKED.upper(), "no other wording"),
        ("word " * 200 + ASKED, "far longer"),
    ],
)
def test_a_paraphrase_that_changes_the_matter_is_not_taken(text: str, why: str) -> None:
    made = augment(
        _rows(_row(ASKED, "Aurora: 24 months.")),
        methods=["paraphrase"],
        per_row=1,
        seed=0,
        rewrite={"paraphrase": lambda asked: text},
    )
    assert not made.rows and [why in reason for reason in made.skipped] == [True]


@pytest.mark.parametrize(
    ("status", "said", "sentence"),
    [
        (401, {"error": {"message": "no"}}, "answered 401"),
        (200, _completion(None), "without text"),
        (200, _completion(" "), "without text"),
        (200, {"choices": []}, "not a chat completion"),
        (200, ["x"], "not a chat completion"),
    ],
)
def test_an_endpoint_that_answers_nonsense_gets_a_sentence(
    status: int, said: Any, sentence: str
) -> None:
    with (
        _server(lambda body, number: (status, said, {})) as (url, _),
        pytest.raises(EndpointError, match=sentence),
    ):
        Endpoint(url, "m", "", retries=0).answer(HELLO)


def test_a_key_never_follows_a_redirect_to_another_host() -> None:
    with _server(lambda body, number: (200, _completion("stolen"), {})) as (elsewhere, reached):
        with (
            _server(
                lambda body, number: (307, {}, {"location": f"{elsewhere}/chat/completions"})
            ) as (url, _),
            pytest.raises(EndpointError, match="307"),
        ):
            Endpoint(url, "m", "secret", retries=0).answer(HELLO)
        assert reached == []


# --- mix ------------------------------------------------------------------------------------------------------------


def _set(name: str, count: int) -> list[Row]:
    return _rows(*[_row(f"{name} {number}?", f"Answer {number}.") for number in range(count)])


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 10**6), min_size=1), st.floats(1, 1e6)
)
@settings(deadline=None)
def test_rates_add_up_and_lie_between_by_size_and_equal(
    sizes: dict[str, int], temperature: float
) -> None:
    found = rates(sizes, temperature)
    assert sum(found.values()) == pytest.approx(1)
    by_size = sorted(sizes, key=sizes.__getitem__)
    assert [found[name] for name in by_size] == sorted(found.values()), (
        "a larger set never has a smaller rate"
    )
    assert found[by_size[0]] >= sizes[by_size[0]] / sum(sizes.values()) - 1e-9


def test_a_temperature_turns_rates_into_weights_and_no_row_is_repeated_or_lost() -> None:
    mixed = mix({"big": _set("big", 400), "small": _set("small", 100)}, temperature=2)
    assert mixed.sets["big"]["rate"] == pytest.approx(2 / 3, abs=1e-3) and mixed.sets["small"][
        "rate"
    ] == pytest.approx(1 / 3, abs=1e-3)
    weights = {
        name: sum(row["weight"] for row in mixed.rows if row["task"] == name)
        for name in ("big", "small")
    }
    assert weights["big"] == pytest.approx(2 * weights["small"], rel=1e-3) and sum(
        weights.values()
    ) == pytest.approx(500, rel=1e-3)
    assert len({row["id"] for row in mixed.rows}) == 500
    fewer = mix({"big": _set("big", 400), "small": _set("small", 100)}, temperature=2, rows=90)
    assert [fewer.sets[name]["taken"] for name in ("big", "small")] == [60, 30]
    assert (
        mix({"big": _set("big", 990), "one": _set("one", 1)}, temperature=1e6).sets["one"]["weight"]
        == MAX_WEIGHT
    )
    with pytest.raises(InputError, match="temperature"):
        rates({"a": 1}, 0.5)


def test_a_sample_is_the_same_whatever_the_order_and_takes_from_every_task() -> None:
    rows = _rows(
        *[
            _row(f"{task} {number}?", "a", task=task)
            for task, count in (("a", 80), ("b", 20))
            for number in range(count)
        ]
    )
    chosen = by_hash(rows, 20)
    assert {row.digest for row in chosen} == {row.digest for row in by_hash(rows[::-1], 20)}
    assert [sum(row.task == task for row in chosen) for task in ("a", "b")] == [16, 4]


def test_replay_has_its_share_and_leaves_out_what_new_rows_answer() -> None:
    new, earlier = _set("new", 80), [*_set("old", 100), *_rows(_row("NEW 3", "Outdated."))]
    taken, replaced = replay(new, earlier, 0.2)
    assert (
        len(taken) == 20
        and [row.answer for row in replaced] == ["Outdated."]
        and "Outdated." not in {row.answer for row in taken}
    )
    with pytest.raises(InputError, match="share"):
        replay(new, earlier, 1.0)


def test_balanced_labels_weigh_alike() -> None:
    rows = _rows(
        *[
            _row(f"question {number}", "common" if number % 4 else "rare", task="t")
            for number in range(40)
        ]
    )
    weighed, classes, _ = balance(rows)
    sums = {
        label: sum(
            row.get("weight", 1.0) for row in weighed if row["messages"][1]["content"] == label
        )
        for label in ("common", "rare")
    }
    assert (
        sums["common"] == pytest.approx(20, rel=1e-3)
        and sums["rare"] == pytest.approx(20)
        and classes["t: rare"] == 2.0
    )


def test_a_weight_that_no_row_may_have_is_bounded_and_its_row_named() -> None:
    tiny, large, _ = rows = _rows(
        _row("tiny?", "a", weight=1e-4), _row("large?", "b", weight=1e4), _row("plain?", "c")
    )
    mixed = mix({"own": rows, "other": _set("other", 60)}, temperature=4)
    assert mixed.sets["own"]["weight"] > 1 and [row["weight"] for row in mixed.rows[:2]] == [
        pytest.approx(mixed.sets["own"]["weight"] * 1e-4, abs=1e-4),
        1e4,
    ]
    assert mixed.notices == [
        f"1 rows would weigh less than 0.0001 or more than 10000, and weigh that: {large.id}."
    ]
    less = mix({"own": rows, "other": _set("other", 1)}, temperature=1e6)
    assert (
        less.sets["own"]["weight"] < 1
        and less.rows[0]["weight"] == 1e-4
        and tiny.id in less.notices[0]
    )
    again = read_lines(json.dumps(row).encode() for row in [*mixed.rows, *less.rows])
    assert not again.bad, "what a mixture writes can be read"
    assert balance(again.rows)[2], "balancing names such rows too"


def test_rows_without_a_message_of_a_user_are_no_source() -> None:
    (row,) = _rows(
        {
            "messages": [
                {"role": "system", "content": "You are a very careful helper"},
                {"role": "assistant", "content": "Hi."},
            ],
            "origin": "review",
        }
    )
    made = augment([row], methods=["swap"], per_row=2, seed=0)
    assert not made.rows and made.skipped == {"has no message of a user": 1}
