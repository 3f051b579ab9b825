"""From a trained version to its report and out of Whet: what a person, plain PEFT and plain
transformers find there.
"""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.training.judging.test_opinion import honest, judge_server
from tests.training.test_commands import Shell
from tests.training.tiny import facts, write_rows
from training.evaluation.report import html
from training.loop.generation import greedy
from training.models.base_model import BaseModel
from training.models.fingerprint import logprobs
from whet.errors import ConflictError

PROMPTS = 50


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Shell:
    """A home with `desk@v1`, trained on six facts, and `desk@v2`, trained on other facts after v1
    went live nowhere.
    """
    folder = tmp_path_factory.mktemp("judged")
    made = Shell(folder / "home", base_folder)
    test = str(write_rows(folder / "test.jsonl", facts(30)))
    quick = (
        "--alias",
        "desk",
        "--test",
        test,
        "--rank",
        "8",
        "--epochs",
        "3",
        "--lr",
        "1e-2",
        "--threads",
        "1",
    )
    made.json(
        "train",
        "run",
        str(write_rows(folder / "one.jsonl", facts(126)[30:])),
        *quick,
        "--full-report",
    )
    return made


@pytest.fixture(scope="module")
def report(shell: Shell) -> dict[str, Any]:
    return dict(shell.json("eval", "report", "desk@v1"))


def test_the_report_of_a_run_has_every_measure_against_the_base(report: dict[str, Any]) -> None:
    measures = {measure["name"]: measure for measure in report["measures"]["old"]}
    assert {
        "right",
        "exact match",
        "chrF",
        "ROUGE-L",
        "perplexity of the reference",
        "stopped by itself",
        "tokens",
        "macro F1",
    } <= set(measures)
    assert all(
        measure["n"] == 30 and set(measure["values"]) == {"candidate", "the base"}
        for measure in measures.values()
    )
    assert measures["perplexity of the reference"]["against"]["the base"]["verdict"] == "better"
    assert report["gate"]["verdict"] and report["gate"]["thresholds"]["margin"] == 0.05
    probes = report["probes"]
    assert "5 newest datasets" in report["earlier"] and "at most 40 test rows" in report["earlier"]
    assert {"forgetting", "bias", "safety", "refused_by_category", "seed"} == set(probes) and len(
        probes["bias"]
    ) == 15


def test_judging_a_later_version_shows_production_and_the_base_beside_it(
    shell: Shell, tmp_path: Path
) -> None:
    other = str(write_rows(tmp_path / "other.jsonl", facts(80, shift=1)[20:]))
    shell.json(
        "train",
        "run",
        other,
        "--alias",
        "desk",
        "--rank",
        "8",
        "--epochs",
        "1",
        "--threads",
        "1",
        "--test",
        str(write_rows(tmp_path / "t.jsonl", facts(20, shift=1))),
    )
    shell("eval", "compare", "desk@v2", "desk@v1", "--test", other)
    found = shell.json("eval", "report", "desk@v2")
    assert (found["against"], found["base"]) == ("desk@v1", "the base")
    right = found["measures"]["old"][0]
    assert list(right["values"]) == ["candidate", "desk@v1", "the base"] and set(
        right["against"]
    ) == {"desk@v1", "the base"}
    votes = shell.json("eval", "votes", "desk@v2")
    assert votes["votes"] == 0 and [pair["name"] for pair in votes["pairs"].values()] == [
        "desk@v1",
        "the base",
    ], "the base's answers are kept to be voted on too"
    earlier = [
        measure for measure in found["probes"]["forgetting"] if "earlier dataset" in measure["name"]
    ]
    assert len(earlier) <= 1, (
        "questions that the newer rows answer otherwise have changed and say nothing about"
        " forgetting"
    )


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_stands_alone_and_shows_texts_as_texts(
    report: dict[str, Any], shell: Shell, tmp_path: Path
) -> None:
    evil = '<script>alert(1)</script><img src="http://x/">'
    hostile = json.loads(json.dumps(report).replace("the base", evil.replace('"', '\\"')))
    hostile["adapter"] = hostile["gate"]["reason"] = evil
    hostile["opinion"] = {"sentence": evil}
    parser = _Tags()
    parser.feed(html(hostile))
    assert not {"script", "img", "link", "iframe", "a"} & {tag for tag, _ in parser.found}
    assert not [attrs for _, attrs in parser.found if {"src", "href", "onload"} & set(attrs)]
    shell("eval", "report", "desk@v1", "--html", str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text()
    assert "Evaluation of desk@v1" in page and "perplexity" in page and "5 newest datasets" in page
    assert "cannot be written" in shell.refused(
        "eval", "report", "desk@v1", "--html", str(tmp_path / "none" / "report.html")
    )


def test_the_page_says_why_there_is_no_bleu(report: dict[str, Any]) -> None:
    some = [measure for measure in report["measures"]["old"] if measure["name"] != "BLEU"]
    bleu = {**some[0], "name": "BLEU"}
    pages = [html({**report, "measures": {"old": measures}}) for measures in (some, [*some, bleu])]
    assert ["Too short for BLEU" in page for page in pages] == [True, False]


def test_a_judges_opinion_joins_the_report_and_changes_no_verdict(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shell.json("adapters", "show", "desk@v1")
    monkeypatch.setenv("WHET_JUDGE_KEY", "key")
    with judge_server(
        lambda body: honest(body) if len(body["messages"]) > 1 else (200, "ready")
    ) as url:
        found = shell.json(
            "eval",
            "judge",
            "desk@v1",
            "--judge-endpoint",
            url,
            "--judge-model",
            "judge",
            "--limit",
            "12",
        )
    assert found["asked"] == 12 and found["agreement"]["kappa"] is None, (
        "nothing in it was reviewed by people"
    )
    assert shell.json("eval", "report", "desk@v1")["opinion"] == found
    assert shell.json("adapters", "show", "desk@v1")["gate"] == before["gate"]


def test_what_breaks_nothing_cannot_be_signed_for(shell: Shell) -> None:
    from typer.testing import CliRunner

    from whet.cli import app

    result = CliRunner().invoke(
        app, ["eval", "sign", "desk@v1", "--reason", "because"], env=shell._environment
    )
    assert isinstance(result.exception, ConflictError) and "nothing to sign for" in str(
        result.exception
    )


def _prompts(base: BaseModel) -> list[list[int]]:
    texts = [row["messages"][0]["content"] for row in facts(PROMPTS)]
    rendered = [
        base.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        for text in texts
    ]
    return [list(base.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in rendered]


def test_an_exported_adapter_and_a_merged_model_answer_alike_in_plain_libraries(
    shell: Shell, bases: dict[str, BaseModel], tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = bases["chatml"]
    shell("export", "adapter", "desk@v1", "--to", str(tmp_path / "adapter"))
    shell("export", "merge", "desk@v1", "--to", str(tmp_path / "merged"))
    adapter = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base.folder, dtype="bfloat16"),
        str(tmp_path / "adapter"),
        autocast_adapter_dtype=False,
    ).eval()
    merged = AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged")).eval()
    assert (tmp_path / "merged" / "model.safetensors").is_file() and not list(
        tmp_path.glob("*/*.bin")
    )
    assert (
        AutoTokenizer.from_pretrained(str(tmp_path / "merged")).chat_template
        == base.tokenizer.chat_template
    )
    prompts = _prompts(base)
    assert greedy(adapter, prompts, base.stop_ids, 12) == greedy(merged, prompts, base.stop_ids, 12)
    card = json.loads((tmp_path / "adapter" / "card.json").read_text())
    probe = card["fingerprint"]["prompts"][0]
    found = logprobs(adapter, probe["token_ids"])
    noise = card["fingerprint"]["noise"]["adapter"]["max"]
    recorded = probe["bfloat16"]["adapter_logprobs"]
    assert max(abs(a - b) for a, b in zip(found[1:], recorded[1:], strict=True)) < 2 * noise


def test_the_model_card_has_data_metrics_limits_and_hashes_and_can_be_read_by_the_hubs_library(
    shell: Shell, tmp_path: Path
) -> None:
    from huggingface_hub import ModelCard

    shell("export", "adapter", "desk@v1", "--to", str(tmp_path / "adapter"))
    text = (tmp_path / "adapter" / "README.md").read_text()
    card = ModelCard.load(tmp_path / "adapter" / "README.md")
    assert card.data.to_dict()["library_name"] == "peft" and card.data.to_dict()["tags"] == [
        "whet",
        "lora",
    ]
    assert all(
        f"## {part}" in text for part in ("Data", "Training", "Measured", "Limits", "Hashes")
    )
    shown = shell.json("adapters", "show", "desk@v1")
    assert (
        shown["digest"] in text
        and shown["base_digest"] in text
        and "96 train" in text
        and "perplexity" in text
    )
    assert (
        shell.json("adapters", "import", str(tmp_path / "adapter"), "--name", "copy")["adapter"]
        == "copy@v1"
    ), "the card beside it is no reason for a refusal"
