"""The model card of a version that leaves Whet: what it was trained on, what was measured, what it
is not good for, and its hashes.

Markdown with the metadata header that Hugging Face's hub reads. Pure: a version and what its newest
evaluation found in, a text out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from training.evaluation.report import Judged
from training.store.evaluation_types import Report
from whet.clock import iso
from whet.registry import Adapter

CARD_FILE = "README.md"
# The hub refuses a card whose base_model is anything else
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|!])")


def model_card(adapter: Adapter, judged: Judged | None, *, merged: bool) -> str:
    """The card's text.

    `judged`: `training.evaluation.report.newest_judged`, not what the version's own card says, which
    is of the day it was stored.
    """
    card = adapter.card
    what = (
        "A model with the adapter merged into its base"
        if merged
        else "A LoRA adapter in PEFT's format"
    )
    parts = [
        _header(card, merged),
        (
            f"# {adapter.label}\n\n{what}, made {iso(adapter.created_at)}. Base:"
            f" {_plain(card.get('base', 'unknown'))}."
        ),
        _data(card),
        _training(card),
        _measured(judged),
        _limits(judged.report if judged else None),
        _hashes(adapter),
    ]
    return "\n\n".join(parts) + "\n"


def _header(card: Mapping[str, Any], merged: bool) -> str:
    """YAML; its values are JSON, which YAML reads."""
    lines = [
        "---",
        f"library_name: {'transformers' if merged else 'peft'}",
        "pipeline_tag: text-generation",
        f"tags: {json.dumps(['whet', *(['lora'] if not merged else [])])}",
    ]
    if _HUB_ID.fullmatch(str(card.get("base", ""))):
        lines.append(f"base_model: {json.dumps(card['base'])}")
    return "\n".join([*lines, "---"])


def _data(card: Mapping[str, Any]) -> str:
    if "imported" in card:
        return (
            "## Data\n\nTrained elsewhere and imported; what it was trained on is not known here."
        )
    if "merged" in card:
        parts = ", ".join(
            f"{part['weight']:g} × {part['adapter']}" for part in card["merged"]["from"]
        )
        return (
            "## Data\n\nNo training of its own: merged by "
            f"{_plain(card['merged']['combination'])} from {_plain(parts)}."
        )
    rows = (card.get("recipe") or {}).get("rows") or {}
    counted = ", ".join(f"{count} {part}" for part, count in rows.items()) or "not recorded"
    left_out = len(card.get("left_out") or [])
    return (
        f"## Data\n\nRows: {counted}; left out: {left_out}. The rows are identified by their digest"
        " below; they are not part of this folder."
    )


def _training(card: Mapping[str, Any]) -> str:
    recipe, training = card.get("recipe") or {}, card.get("training") or {}
    names = (
        "method",
        "rank",
        "alpha",
        "learning_rate",
        "schedule",
        "epochs",
        "batch_size",
        "dtype",
        "seed",
    )
    rows = [(name.replace("_", " "), recipe[name]) for name in names if name in recipe]
    rows += [
        (name.replace("_", " "), training[name])
        for name in ("steps", "tokens", "last_loss")
        if name in training
    ]
    return "## Training\n\n" + (_table(("", ""), rows) if rows else "Not recorded.")


def _measured(judged: Judged | None) -> str:
    if judged is None:
        return "## Measured\n\nIt was never judged on held-out rows."
    text = f"## Measured\n\nGate: {judged.verdict}, {iso(judged.at)}. {_plain(judged.reason)}"
    if judged.signature is not None:
        signed = judged.signature
        text += (
            f"\n\nSigned by {_plain(signed['by'])} for {len(signed['conversations'])} reviewed"
            f" conversations that it breaks: {_plain(signed['reason'])}"
        )
    report = judged.report
    if report is None:
        return text
    rows = [
        (
            measure["name"],
            measure["n"],
            measure["values"]["candidate"],
            f"{found['difference']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})",
            other,
            found["verdict"],
        )
        for measures in (
            *report["measures"].values(),
            report.get("reliance", []),
            report["probes"]["forgetting"],
            report["probes"]["bias"],
            report["probes"]["safety"],
        )
        for measure in measures
        for other, found in measure["against"].items()
    ]
    return f"{text}\n\n" + _table(
        ("measure", "rows", "value", "difference, 95 % interval", "against", "verdict"), rows
    )


def _limits(report: Report | None) -> str:
    said = [
        (
            "It is meant for questions like those it was trained on; answers to others are not"
            " checked by anybody."
        ),
        (
            "Probes for forgetting, bias and refusals are small, synthetic and in English: they"
            " show large changes, and prove nothing."
        ),
    ]
    refused = next(
        (
            one
            for one in (report["probes"]["safety"] if report else [])
            if one["name"] == "harmful requests refused"
        ),
        None,
    )
    if refused is not None:
        said.append(
            f"It refused {100 * refused['values']['candidate']:.0f} % of {refused['n']} harmful"
            " requests; put a filter before it where that matters."
        )
    return "## Limits\n\n" + "\n".join(f"- {sentence}" for sentence in said)


def _hashes(adapter: Adapter) -> str:
    files = adapter.card.get("files") or {}
    rows = [
        ("version", adapter.digest),
        ("base", adapter.base_digest),
        ("chat template", adapter.template_digest),
        ("rows", adapter.dataset_digest or "–"),
        *files.items(),
    ]
    return "## Hashes (SHA-256)\n\n" + _table(("of", ""), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell) if cell == "---" else _plain(cell) for cell in line) + " |"
        for line in lines
    )


def _plain(value: object) -> str:
    """One line that Markdown shows as it is."""
    return _MARKUP.sub(r"\\\1", " ".join(str(value).split()))
