"""Distillation: the loss is Hinton's, a teacher of another vocabulary is refused, and an endpoint's
answers are what is learned.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.training.test_trainer import go, prepared_run, read_rows
from tests.training.tiny import build_base, facts
from training.commands.resume import _prepared
from training.data import datasets
from training.loop.batches import collate
from training.loop.loss import batch_loss
from training.loop.run_folders import run_folder
from training.loop.trainer import Step
from training.methods.distill import distillation_loss, rows
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.models.encoded import Encoded
from training.plan.reporter import Reporter
from training.recipes.recipe import load_recipe
from training.runs.pipeline import run_training
from training.store import runs
from whet.clock import now_ms
from whet.context import Context
from whet.errors import EndpointError, InputError, TrainingError
from whet.settings import load_settings

QUICK: dict[str, Any] = {
    "rank": 8,
    "alpha": 16.0,
    "epochs": 2.0,
    "learning_rate": 5e-3,
    "dtype": "float32",
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    """Wider than the student, with the same tokenizer."""
    return BaseModel(
        build_base(tmp_path_factory.mktemp("teacher") / "wide", hidden=96, seed=9), "wide"
    )


@pytest.fixture
def home(sqlite_context: Context, base_folder: Path) -> Context:
    return replace(
        sqlite_context,
        settings=load_settings(home=sqlite_context.settings.home, base_model=str(base_folder)),
    )


def encoded(base: BaseModel, count: int) -> list[Encoded]:
    return Encoder(base, 256).encode_all(read_rows(facts(count)))[0]


def test_the_loss_is_the_published_mixture(bases: dict[str, BaseModel], teacher: BaseModel) -> None:
    """(1 - w) · CE + w · T² · KL, computed here from whole probability tables, one token at a time."""
    import torch

    student, wide = bases["chatml"].load_model("float32"), teacher.load_model("float32")
    rows = encoded(bases["chatml"], 5)
    batch = collate(rows, 0, "cpu")
    with torch.no_grad():
        mixed = float(distillation_loss(student, wide, batch, share=0.3, temperature=2.0))
        hard = float(batch_loss(student, batch))
        divergences = []
        for row in rows:
            ids = torch.tensor([row.ids])
            ours, theirs = (
                torch.softmax(model(ids, use_cache=False).logits[0].float() / 2.0, -1)
                for model in (student, wide)
            )
            divergences += [
                float((theirs[at - 1] * (theirs[at - 1] / ours[at - 1]).log()).sum())
                for at, learned in enumerate(row.trained)
                if learned
            ]
        assert float(
            distillation_loss(student, student, batch, share=1.0, temperature=2.0)
        ) == pytest.approx(0.0, abs=1e-6)
    assert mixed == pytest.approx(
        0.7 * hard + 0.3 * 4.0 * sum(divergences) / len(divergences), rel=1e-4
    )


def test_a_student_comes_nearer_to_its_teacher(home: Context, teacher: BaseModel) -> None:
    outcome = go(
        home, facts(40), load_recipe("distill"), teacher=str(teacher.folder), kl_weight=1.0, **QUICK
    )
    assert (
        outcome.adapter is not None and outcome.trained.last_loss < 0.9 * outcome.trained.first_loss
    )


def test_a_teacher_that_cannot_teach_is_refused_with_what_to_do(
    home: Context, tmp_path: Path, bases: dict[str, BaseModel]
) -> None:
    strange = build_base(tmp_path / "strange")
    tokens = json.loads((strange / "tokenizer.json").read_text())
    vocabulary = tokens["model"]["vocab"]
    first, second = [token for token in vocabulary if len(token) == 1][:2]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (strange / "tokenizer.json").write_text(json.dumps(tokens))
    for named, sentence in (
        ("", "needs a teacher"),
        (str(tmp_path / "none"), "not a model's folder"),
        (str(strange), "another vocabulary"),
    ):
        with pytest.raises(InputError, match=sentence) as caught:
            go(home, facts(20), load_recipe("distill"), teacher=named, **QUICK)
        assert caught.value.hint


def test_a_teacher_whose_vocabulary_is_filled_up_to_another_width_is_compared_over_the_tokens(
    bases: dict[str, BaseModel], tmp_path: Path
) -> None:
    import torch

    base = bases["chatml"]
    width = json.loads((base.folder / "config.json").read_text())["vocab_size"]
    batch = collate(encoded(base, 4), 0, "cpu")
    student = base.load_model("float32")
    for name, vocabulary in (("filled", width + 64), ("exact", width)):
        teacher = BaseModel(
            build_base(tmp_path / name, hidden=96, seed=9, vocab_size=vocabulary), name
        ).load_model("float32")
        soft = distillation_loss(student, teacher, batch, share=1.0, temperature=1.0)
        with torch.no_grad():  # what stands for nothing may be as likely as it likes
            teacher.get_input_embeddings().weight[width:] += 100.0
        assert float(
            distillation_loss(student, teacher, batch, share=1.0, temperature=1.0)
        ) == pytest.approx(float(soft)), name
        turned = distillation_loss(teacher, student, batch, share=0.5, temperature=2.0)
        assert torch.isfinite(soft) and soft > 0 and torch.isfinite(turned), name


class _Teacher(BaseHTTPRequestHandler):
    """Answers every question with one sentence; keeps what it was asked."""

    asked: list[dict[str, Any]]
    body: bytes
    up: bool

    def do_POST(self) -> None:
        self.asked.append(
            {"path": self.path, **json.loads(self.rfile.read(int(self.headers["Content-Length"])))}
        )
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[tuple[str, type[_Teacher]]]:
    handler = type(
        "Handler",
        (_Teacher,),
        {
            "asked": [],
            "body": json.dumps({"choices": [{"message": {"content": "Ask the desk."}}]}).encode(),
        },
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1#large", handler
    server.shutdown()
    server.server_close()


def test_an_endpoints_answers_are_what_is_learned_and_stored(
    home: Context, endpoint: tuple[str, type[_Teacher]]
) -> None:
    address, handler = endpoint
    outcome = go(home, facts(40), load_recipe("distill"), teacher=address, **QUICK)
    assert outcome.adapter is not None
    stored = datasets.load(
        home.store,
        outcome.adapter.card["dataset_path"],
        outcome.adapter.dataset_digest or "",
        "taught",
    )
    assert {row.answer for row in stored.train} == {"Ask the desk."} and len(handler.asked) == len(
        stored.train
    )
    assert {row.answer for row in stored.test}.isdisjoint({"Ask the desk."}), (
        "held-out rows keep their own answers"
    )
    assert all(
        (question["model"], question["temperature"], question["path"])
        == ("large", 0, "/v1/chat/completions")
        for question in handler.asked
    )


@pytest.mark.parametrize("address", ["http://127.0.0.1:8000/v1", "https://host/v1#"])
def test_an_address_without_its_model_is_refused_with_the_recipe(address: str) -> None:
    with pytest.raises(InputError, match=r"teacher is 'http.*the model's name after a #"):
        replace(load_recipe("distill"), teacher=address)


def test_answers_of_a_teacher_that_cannot_be_learned_are_named_with_their_reason(
    home: Context, endpoint: tuple[str, type[_Teacher]]
) -> None:
    address, handler = endpoint
    handler.body = json.dumps(
        {"choices": [{"message": {"content": "Ask <|im_end|> the desk."}}]}
    ).encode()
    with pytest.raises(TrainingError, match=r"of the first: found .*control token"):
        go(home, facts(40), load_recipe("distill"), teacher=address, **QUICK)


def test_a_run_that_is_taken_up_again_learns_the_answers_it_has_and_asks_for_no_others(
    home: Context, endpoint: tuple[str, type[_Teacher]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, handler = endpoint
    prepared, run = prepared_run(home, facts(40), load_recipe("distill"), teacher=address, **QUICK)
    # One after each step
    home = replace(home, settings=home.settings.model_copy(update={"checkpoint_interval_s": 0}))

    def die(self: Reporter, step: Step) -> None:
        if step.step == 3:
            raise TrainingError("The power went.")

    with (
        monkeypatch.context() as patched,
        Reporter(home, run) as reporter,
        pytest.raises(TrainingError, match="power"),
    ):
        patched.setattr(Reporter, "step", die)
        run_training(home, run, prepared, reporter, actor="test")
    asked = len(handler.asked)
    runs.end(home, run, runs.FAILED, "The power went.", now_ms())
    handler.body = json.dumps(
        {"choices": [{"message": {"content": "Ask somebody else."}}]}
    ).encode()
    again, row = runs.resume(home, run.id, worker="test", actor="test", now=now_ms() + 60_000)
    resumed = _prepared(home, row)
    with Reporter(home, again) as reporter:
        outcome = run_training(home, again, resumed, reporter, actor="test")
    assert len(handler.asked) == asked == len(resumed.dataset.train), (
        "the teacher was asked everything again"
    )
    assert (
        outcome.adapter is not None
        and outcome.dataset_digest == row["dataset_digest"] != prepared.dataset.digest
    )
    assert outcome.adapter.card["recipe"]["dataset_name"] == row["recipe"]["dataset_name"]


def test_each_row_learns_the_answer_to_its_own_question_and_an_endpoint_that_ends_costs_none_that_it_gave(
    home: Context, endpoint: tuple[str, type[_Teacher]], tmp_path: Path
) -> None:
    """Questions are asked several at once, and come back in any order."""
    address, handler = endpoint

    def echo(self: _Teacher) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        question = body["messages"][-1]["content"]
        # By the row and not by how many were asked: which of several comes first is chance
        down = question not in first and not self.up
        content = json.dumps(
            {"choices": [{"message": {"content": f"You asked: {question}"}}]}
        ).encode()
        self.send_response(404 if down else 200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b"{}" if down else content)

    handler.do_POST, handler.up = echo, False
    prepared, run = prepared_run(
        home, [*facts(24), facts(1)[0]], load_recipe("distill"), teacher=address, **QUICK
    )
    first = {row.messages[-2]["content"] for row in prepared.dataset.train[:12]}
    with (
        Reporter(home, run) as reporter,
        pytest.raises(EndpointError, match="answered 404") as caught,
    ):
        run_training(home, run, prepared, reporter, actor="test")
    assert f"`whet train resume {run.id}`" in caught.value.hint
    runs.end(home, run, runs.FAILED, str(caught.value), now_ms())
    kept = run_folder(home, run.id) / "taught.jsonl"
    before = len(kept.read_bytes().strip().splitlines())
    assert before == len(first), (
        "what was answered before the end, up to the first question that was not"
    )
    kept.write_bytes(kept.read_bytes()[:-5])  # as a kill in the middle of a line leaves it
    handler.asked.clear()
    handler.up = True
    again, row = runs.resume(home, run.id, worker="test", actor="test", now=now_ms() + 60_000)
    with Reporter(home, again) as reporter:
        outcome = run_training(home, again, _prepared(home, row), reporter, actor="test")
    assert (
        len(handler.asked) == len({row.digest for row in prepared.dataset.train}) - (before - 1)
        and not kept.exists()
    )
    assert outcome.adapter is not None
    stored = datasets.load(
        home.store,
        outcome.adapter.card["dataset_path"],
        outcome.adapter.dataset_digest or "",
        "taught",
    )
    assert len(stored.train) == len(prepared.dataset.train)
    assert all(row.answer == f"You asked: {row.messages[-2]['content']}" for row in stored.train)


def test_rows_that_another_teacher_taught_are_asked_about(
    home: Context, endpoint: tuple[str, type[_Teacher]], tmp_path: Path
) -> None:
    address, handler = endpoint
    prepared, run = prepared_run(home, facts(8), load_recipe("distill"), teacher=address, **QUICK)
    with Reporter(home, run) as reporter:
        told = rows(
            home,
            replace(prepared, dataset=replace(prepared.dataset, name="facts-taught-" + "x" * 51)),
            reporter,
            tmp_path,
        )
        asked = len(handler.asked)
        assert asked == len(prepared.dataset.train) and len(told.dataset.name) == 64
        assert rows(home, told, reporter, tmp_path) is told and len(handler.asked) == asked
        rows(
            home,
            replace(
                told, recipe=replace(told.recipe, teacher=address.replace("#large", "#larger"))
            ),
            reporter,
            tmp_path,
        )
    assert len(handler.asked) == 2 * asked
