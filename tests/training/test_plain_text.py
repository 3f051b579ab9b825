"""Plain texts: every token learned once, nothing lost, judged by what held-out ones cost."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.test_commands import Shell
from tests.training.tiny import facts, write_rows
from training.data.datasets import Shares
from training.data.formats import read_file
from training.data.plain_text import windows
from training.data.rows import BadLine, Row, read_objects
from training.data.similar import Shape, clusters
from training.data.split import split
from training.data.text_files import SECTION, text_rows
from training.evaluation.gate import FAIL, INCONCLUSIVE, PASS, Thresholds
from training.evaluation.nll import reference_nll
from training.evaluation.text_gate import TextPair, judge_texts
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.models.encoded import Encoded

WORDS = (
    "the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "sends", "it", "to",
    "service", "desk",
)  # fmt: skip


def _texts(count: int, words: int = 40, seed: int = 0) -> list[dict[str, str]]:
    draw = random.Random(seed)
    return [{"text": " ".join(draw.choices(WORDS, k=words)) + "."} for _ in range(count)]


def _row(text: str, **fields: object) -> Row:
    reading = read_objects([(1, {"text": text, **fields})], unit="row", asked=True)
    assert not reading.bad, str(reading.bad[0])
    return reading.rows[0]


@settings(max_examples=60, deadline=None)
@given(text=st.text(min_size=1, max_size=200).filter(str.strip), length=st.integers(2, 40))
def test_windows_hold_every_token_and_predict_each_once(
    base: BaseModel, text: str, length: int
) -> None:
    tokenizer = base.tokenizer
    whole = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    found = windows(tokenizer, text, length)
    assert all(len(window.ids) <= length for window in found)
    assert [whole[window.start : window.start + len(window.ids)] for window in found] == [
        list(window.ids) for window in found
    ]
    predicted = [
        window.start + at
        for window in found
        for at, learned in enumerate(window.trained)
        if learned and (at or not window.start)
    ]
    assert predicted == list(range(len(whole))), "a token is lost, or learned twice"


def test_a_text_is_learned_whole_with_its_end(base: BaseModel) -> None:
    encoded = Encoder(base, 512).encode(_row("It is 24 months."))
    assert isinstance(encoded, Encoded) and all(encoded.trained) and encoded.prompt_tokens == 0
    text = base.tokenizer.decode(list(encoded.ids), skip_special_tokens=False)
    assert text == f"It is 24 months.{base.tokenizer.eos_token}"


def test_a_long_text_is_several_entries_of_one_row(base: BaseModel) -> None:
    row = _row(_texts(1, words=200)[0]["text"], weight=2)
    encoded, kept, bad = Encoder(base, 64).encode_all([row])
    assert len(encoded) > 2 and kept == [row] and not bad
    assert {(one.line, one.weight) for one in encoded} == {(1, 2.0)}
    whole = len(base.tokenizer(row.answer)["input_ids"]) + 1
    assert sum(sum(one.trained) for one in encoded) == whole


def test_control_tokens_and_removed_data_are_not_learned(base: BaseModel) -> None:
    refused = Encoder(base, 64).encode(_row("a <|im_end|> b"))
    assert isinstance(refused, BadLine) and "control token" in refused.found
    encoded = Encoder(base, 64).encode(_row("Write to <EMAIL_1> now", scrubbed=["<EMAIL_1>"]))
    assert isinstance(encoded, Encoded)
    learned = [token for token, kept in zip(encoded.ids, encoded.trained, strict=True) if kept]
    assert "EMAIL" not in base.tokenizer.decode(learned)


def test_texts_are_rows_of_their_own_in_every_comparison() -> None:
    rows = [_row(text["text"]) for text in _texts(30)]
    assert (
        len({row.prompt_digest for row in rows}) == len({Shape(row).question for row in rows}) == 30
    )
    assert clusters(rows) == list(range(30))
    assert clusters([rows[0], replace(rows[0], line=2)]) == [0, 0]
    parts = split(rows, Shares(0.0, 0.2))
    assert not parts.dropped and 1 <= len(parts.parts["test"]) < 15


def test_a_share_of_the_texts_is_held_out_beside_conversations() -> None:
    raw = [(number, row) for number, row in enumerate([*_texts(100), *facts(100)], start=1)]
    parts = split(read_objects(raw, unit="row").rows, Shares(0.0, 0.2)).parts
    assert 5 <= sum(row.is_text for row in parts["test"]) <= 40
    assert any(not row.is_text for row in parts["test"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.text("ab \n", max_size=8) | st.integers(1, 2500).map(lambda n: "x" * n)
        | st.integers(1, 30).map(lambda n: "\n".join(["y" * 300] * n)),
        max_size=12,
    )
)  # fmt: skip
def test_sections_of_a_text_file_lose_no_text(pieces: list[str]) -> None:
    content = "\n\n".join(pieces)
    found = list(text_rows(content))
    assert "".join("".join(row["text"] for _, row in found).split()) == "".join(content.split())
    lines = content.split("\n")
    for number, row in found:
        assert lines[number - 1].strip() and row["text"].startswith(lines[number - 1])
        assert len(row["text"]) <= SECTION or "\n" not in row["text"]


def test_a_text_file_is_text_unless_its_lines_are_objects(tmp_path: Path) -> None:
    file = tmp_path / "book.txt"
    file.write_text("One.\n\nTwo.\n")
    assert [row.answer for row in read_file(file).rows] == ["One.\n\nTwo."]
    file.write_text('{"prompt": "q", "completion": "a"}\n')
    assert [row.kind for row in read_file(file).rows] == ["prompt"]
    file.write_text("\n\n".join(f"Paragraph {number}. {'word ' * 300}" for number in range(20)))
    reading = read_file(file)
    assert len(reading.rows) > 5 and reading.rows[0].line == 1 and not reading.bad


def test_a_text_beside_another_format_is_not_used(tmp_path: Path) -> None:
    reading = read_objects([(1, {**facts(1)[0], "text": "User: …"})], unit="row", asked=True)
    assert reading.rows[0].kind == "messages" and reading.unknown_fields == {"text": 1}


# --- judging ----------------------------------------------------------------------------------


def _pairs(count: int, candidate: float, against: float, spread: float = 0.1) -> list[TextPair]:
    draw = random.Random(count)
    sizes = [draw.randint(200, 400) for _ in range(count)]
    noise = [draw.uniform(-spread, spread) for _ in range(count)]
    return [
        TextPair(size, size // 4, size * (candidate + more), size * against)
        for size, more in zip(sizes, noise, strict=True)
    ]


@pytest.mark.parametrize(
    ("count", "candidate", "against", "spread", "must_beat", "verdict"),
    [
        (20, 0.5, 0.7, 0.1, True, PASS),
        (20, 0.7, 0.7, 0.0, True, FAIL),
        (20, 0.8, 0.7, 0.1, True, FAIL),
        (12, 0.68, 0.7, 0.2, True, INCONCLUSIVE),
        (9, 0.5, 0.7, 0.1, True, INCONCLUSIVE),
        (20, 0.5, 0.7, 0.1, False, PASS),
        (20, 0.703, 0.7, 0.001, False, PASS),
        (20, 0.72, 0.7, 0.001, False, FAIL),
        (12, 0.7, 0.7, 0.2, False, INCONCLUSIVE),
    ],
)
def test_held_out_texts_decide_by_what_they_cost(
    count: int, candidate: float, against: float, spread: float, must_beat: bool, verdict: str
) -> None:
    pairs = _pairs(count, candidate, against, spread)
    found = judge_texts(pairs, Thresholds(), against="the base", must_beat=must_beat)
    assert found.verdict == verdict, found.sentence
    assert found.metrics["low"] <= found.metrics["difference"] <= found.metrics["high"]
    bits = sum(pair.candidate for pair in pairs) / sum(pair.bytes for pair in pairs) / math.log(2)
    assert found.metrics["candidate_bits_per_byte"] == pytest.approx(bits, abs=1e-4)


def test_the_cost_of_a_long_text_is_that_of_all_its_windows(base: BaseModel) -> None:
    import torch

    encoder, row = Encoder(base, 32), _row(_texts(1, words=120)[0]["text"])
    model = base.load_model("float32")
    cost = reference_nll(model, encoder, [row])[row.id]
    expected, tokens = 0.0, 0
    for window in windows(base.tokenizer, row.answer, 32):
        ids = torch.tensor([window.ids])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        expected -= float(logits.gather(1, ids[0, 1:, None]).sum())
        tokens += len(window.ids) - 1
    assert (cost.tokens, cost.nats) == (tokens, pytest.approx(expected, rel=1e-4))


# --- the commands -----------------------------------------------------------------------------


@pytest.fixture
def shell(tmp_path: Path, base_folder: Path) -> Shell:
    return Shell(tmp_path / "home", base_folder)


def test_check_and_stats_know_texts(shell: Shell, tmp_path: Path) -> None:
    rows = [*_texts(12), {"text": " ".join(WORDS * 40)}, *facts(12)]
    file = str(write_rows(tmp_path / "rows.jsonl", rows))
    found = shell.json("data", "check", file)
    assert found["errors"] == 0, found["findings"]
    assert found["kinds"] == {"text": 13, "messages": 12} and found["rows"] == 25
    assert found["text_windows"] > 13
    assert [piece["trained"] for piece in found["previews"][0]["pieces"]] == [True]
    codes = {finding["code"] for finding in found["findings"]}
    assert not codes & {"conflicts", "order", "imbalance", "no_stop", "unseen"}, found["findings"]
    assert shell.json("data", "stats", file)["kinds"] == found["kinds"]


@pytest.mark.parametrize("method", ["dpo", "kto", "orpo"])
def test_methods_that_compare_answers_refuse_texts(
    shell: Shell, tmp_path: Path, method: str
) -> None:
    file = str(write_rows(tmp_path / "rows.jsonl", _texts(40)))
    assert method in shell.refused("train", "run", file, "--method", method, "--alias", "t")


def test_a_run_on_texts_and_conversations_is_judged_by_both(shell: Shell, tmp_path: Path) -> None:
    texts, held_out = _texts(60), _texts(12, seed=1)
    rows = [*texts, *facts(24)]
    file, test = tmp_path / "rows.jsonl", tmp_path / "test.jsonl"
    write_rows(file, rows)
    write_rows(test, held_out)
    found = shell.json(
        "train", "run", str(file), "--test", str(test), "--alias", "t", "--epochs", "2"
    )
    metrics = found["metrics"]
    assert {name for name, group in metrics.items() if group["n"]} == {"text"}
    assert metrics["text"]["n"] == 12
    assert metrics["text"]["candidate_bits_per_byte"] < metrics["text"]["against_bits_per_byte"]
    assert found["verdict"] == "pass" and "bits per byte" in found["reason"]
    report = shell.json("eval", "report", "t")
    assert [measure["name"] for measure in report["measures"]["text"]] == ["perplexity per token"]
    again = shell.json("eval", "run", "t", "--test", str(test))
    assert again["metrics"]["text"]["n"] == 12
    assert json.dumps(again["metrics"]["text"]["candidate"])
