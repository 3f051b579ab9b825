"""The refusal rule on labelled sentences: precision and recall by language, and its cost.

`refusals.tsv`: `tuned` were looked at while the rule was made, `kept apart` were not, and `evading`
were written afterwards to get past it. One person wrote all of them.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import binomtest

from monitoring.signals.refusals import refusal_of, refuses

_SENTENCES = Path(__file__).with_name("refusals.tsv")
SPLITS = ("tuned", "kept apart", "evading")
_COST_ANSWERS = 5_000
_FILLER = (
    "Thank you for your message.",
    "You can change the address under Settings, Delivery, until the parcel has left our house.",
    "The warranty lasts two years and covers the battery as well.",
    "If the lamp does not turn green, hold the button for ten seconds and try it again.",
    "Your order was sent this morning and arrives on Thursday between nine and noon.",
)


class Sentence(NamedTuple):
    """One labelled answer."""

    split: str
    language: str
    label: str  # refusal, partial (counts as a refusal) or ordinary
    text: str


def read_sentences() -> list[Sentence]:
    """Every labelled sentence, in the file's order."""
    lines = _SENTENCES.read_text(encoding="utf-8").rstrip("\n").split("\n")[1:]
    return [Sentence(*line.split("\t")) for line in lines]


def run_refusals() -> dict[str, Any]:
    """Count by split and language; time the rule on ordinary answers."""
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for one in read_sentences():
        wanted, found = one.label != "ordinary", refuses(one.text)
        row = counts[one.split, one.language]
        row[0] += 1
        row[1] += wanted
        row[2] += found
        row[3] += wanted and found
    languages = list(dict.fromkeys(language for _, language in counts))
    rows = [
        {"split": split, "language": language}
        | dict(
            zip(("sentences", "refusals", "called", "right"), counts[split, language], strict=True)
        )
        for split in SPLITS
        for language in languages
    ]
    answers = ordinary_answers(_COST_ANSWERS)
    cost = {
        "rule": _milliseconds(refuses, answers),
        "with_language": _milliseconds(refusal_of, answers),
    }
    return {"rows": rows, "cpu_ms_per_1000": cost}


def ordinary_answers(count: int) -> list[str]:
    """Answers of a support desk, three to eight sentences each, none a refusal, all different."""
    r = random.Random(21)
    return [
        f"Hello, about your request {number}: " + " ".join(r.choices(_FILLER, k=r.randint(3, 8)))
        for number in range(count)
    ]


def _milliseconds(rule: Callable[[str], object], answers: Sequence[str]) -> float:
    """Processor time per 1,000 answers."""
    began = time.process_time()
    for answer in answers:
        rule(answer)
    return round(1e6 * (time.process_time() - began) / len(answers), 1)


def write_refusals(part: Mapping[str, Any]) -> list[str]:
    """Markdown of a recorded part."""
    lines = [
        "**The refusal rule on labelled sentences** (recall with Wilson's 95 % interval over all "
        "languages; `evading` was written to get past the rule)",
        "",
        "| sentences | of them | precision | recall | by language: recall, precision |",
        "|---|---:|---:|---:|---|",
    ]
    for split in SPLITS:
        rows = [row for row in part["rows"] if row["split"] == split]
        total = {
            name: sum(row[name] for row in rows)
            for name in ("sentences", "refusals", "called", "right")
        }
        low, high = binomtest(total["right"], total["refusals"]).proportion_ci(method="wilson")
        each = "; ".join(
            f"{row['language']} {row['right']}/{row['refusals']}, {row['right']}/{row['called']}"
            for row in rows
        )
        precision = f"{total['right'] / max(1, total['called']):.0%}"
        recall = f"{total['right'] / total['refusals']:.0%} ({low:.0%}–{high:.0%})"
        lines.append(f"| {split} | {total['sentences']} | {precision} | {recall} | {each} |")
    cost = part["cpu_ms_per_1000"]
    return [
        *lines,
        "",
        f"Processor time for 1,000 ordinary answers: {cost['rule']:g} ms, and "
        f"{cost['with_language']:g} ms where the language is found as well.",
    ]
