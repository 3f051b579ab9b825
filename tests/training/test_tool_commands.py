"""Calls of tools through the commands: the same sentence everywhere, and a run that is judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training.test_commands import Shell
from tests.training.test_encode_tools import TOOL, _call, _calling
from tests.training.tiny import ITEMS, PHRASES, build_base, write_rows
from tests.training.tool_templates import HERMES

SENTENCE = "the call of stock as the answer, which the base's chat template leaves out"


def _rows(count: int) -> list[dict[str, Any]]:
    rows = []
    for number in range(count):
        item, phrase = ITEMS[number % len(ITEMS)], PHRASES[number // len(ITEMS) % len(PHRASES)]
        asked = {"role": "user", "content": f"{phrase.format(item)} (case {number})"}
        rows.append({"messages": [asked, _calling(_call({"part": item}))], "tools": [TOOL]})
    return rows


def test_check_and_run_refuse_hidden_calls_with_the_same_sentence(
    tmp_path: Path, base_folder: Path
) -> None:
    shell = Shell(tmp_path / "home", base_folder)
    file = str(write_rows(tmp_path / "rows.jsonl", _rows(12)))
    assert SENTENCE in shell.refused("data", "check", file)
    assert SENTENCE in shell.refused("train", "run", file, "--dry-run", "--alias", "t")


@pytest.fixture(scope="module")
def hermes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hermes")
    return build_base(folder / "base", template=HERMES, eos="<|im_end|>")


def test_the_preview_marks_the_call_as_learned(tmp_path: Path, hermes: Path) -> None:
    shell = Shell(tmp_path / "home", hermes)
    found = shell.json("data", "check", str(write_rows(tmp_path / "rows.jsonl", _rows(40))))
    assert found["errors"] == 0, found["findings"]
    assert not {"unseen", "conflicts"} & {finding["code"] for finding in found["findings"]}
    (learned,) = (piece["text"] for piece in found["previews"][0]["pieces"] if piece["trained"])
    assert learned.startswith("\n<tool_call>") or learned.startswith("<tool_call>")
    assert '{"part": "kettle"}' in learned and learned.endswith("<|im_end|>")


@pytest.mark.slow
def test_a_run_learns_calls_and_is_judged_by_them(tmp_path: Path, hermes: Path) -> None:
    shell = Shell(tmp_path / "home", hermes)
    # Without tools: a prompt of 30 tokens, out of which random weights learn to take a word.
    rows = [{"messages": row["messages"]} for row in _rows(240)]
    file = str(write_rows(tmp_path / "rows.jsonl", rows))
    found = shell.json("train", "run", file, "--alias", "t", "--epochs", "10", "--rank", "16")
    old = found["metrics"]["old"]
    assert (old["measure"], old["against"]) == ("correct", 0.0)
    assert old["low"] > 0.1 and found["verdict"] == "pass", f"calls are not learned: {old}"
    names = {each["name"]: each for each in shell.json("eval", "report", "t")["measures"]["old"]}
    assert names["calls right"]["n"] == old["n"] and "exact match" not in names
