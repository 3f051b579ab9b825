"""The demo's report: `report.json` for scripts, `report.html` with plots for people; one file, no
remote asset.
"""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.zenith.story.client import Answer

if TYPE_CHECKING:
    from examples.zenith.demo import Story

_BUCKET_S = 10  # seconds of live traffic per point of the timeline

_NAMES = {
    "base_old": "base, old world",
    "v1_old": "v1, old world",
    "v1_new": "v1, after the change",
    "v2_old": "v2, old world",
    "v2_new": "v2, after the change",
}
# The table of what retrieval does at once, and what training adds: (column, old key, new key).
_COLUMNS = (
    ("base", "base_old", "base_new"),
    ("v1", "v1_old", "v1_new"),
    ("v1 + documents", "v1_documents_old", "v1_documents_new"),
    ("v2", "v2_old", "v2_new"),
    ("v2 + documents", "v2_documents_old", "v2_documents_new"),
)


def write_report(
    folder: Path, story: Story, compressed: dict[str, tuple[str, str]]
) -> dict[str, Any]:
    """Write both files into `folder` and return what report.json holds."""
    report = {
        "accuracy": story.accuracy,
        "held_out_questions": story.n,
        "columns": columns(story.accuracy, story.n),
        "correction_to_live_seconds": story.facts["correction_to_live_seconds"],
        "requests": story.ledger.counts(),
        "log_rows": story.facts["log_rows"],
        "responses_received": story.facts["responses_received"],
        "stages": story.stages,
        "total_seconds": story.facts["total_seconds"],
        "live_score": {
            name: {"right": round(value, 4), "n": n}
            for name, (value, n) in story.facts["live_score"].items()
        },
        "reviewer": story.facts["reviewer"],
        "alerts": story.facts["alerts"],
        "runs": {"v1": story.facts["v1_run"], "v2": story.facts["v2_run"]},
        "parity": {"v1": story.facts["v1_parity"], "v2": story.facts["v2_parity"]},
        "gate": story.facts["gate"],
        "rollout": story.facts["rollout"],
        "trace": story.facts["trace"],
        "compressed": {
            name: {"value": value, "meaning": meaning}
            for name, (value, meaning) in compressed.items()
        },
        "timeline": timeline(
            [answer for answer in story.ledger.answers if "@" not in answer.model], story.marks
        ),
        "marks": [{"at": at, "what": what} for at, what in story.marks],
        "failures": story.ledger.failures[:50],
        "synthetic": (
            "Zenith is invented; its conversations, its customers and its reviewer are made by code"
            " in examples/zenith."
        ),
    }
    (folder / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False))
    (folder / "report.html").write_text(_page(report))
    return report


def columns(accuracy: dict[str, float], asked: dict[str, int]) -> list[dict[str, Any]]:
    """Return one row per way to answer: share right of old and of new questions, and how many."""
    return [
        {
            "name": name,
            **{
                kind: {"right": accuracy[key], "n": asked[key]}
                for kind, key in (("old", old), ("new", new))
                if key in accuracy
            },
        }
        for name, old, new in _COLUMNS
    ]


def timeline(answers: list[Answer], marks: list[tuple[float, str]]) -> list[dict[str, Any]]:
    """Live traffic in buckets of 10 seconds: share right by kind of question, and who answered."""
    if not answers:
        return []
    start = min(answer.at for answer in answers)
    buckets: dict[int, list[Answer]] = {}
    for answer in answers:
        buckets.setdefault(int((answer.at - start) // _BUCKET_S), []).append(answer)
    points = []
    for index, group in sorted(buckets.items()):
        point: dict[str, Any] = {
            "at": start + index * _BUCKET_S,
            "n": len(group),
            "right": sum(answer.right for answer in group) / len(group),
        }
        adapters = [answer.adapter for answer in group]
        point["adapters"] = {name: adapters.count(name) for name in sorted(set(adapters))}
        points.append(point)
    return points


def _page(report: dict[str, Any]) -> str:
    import plotly.graph_objects as go  # heavy, and needed only here

    names = [name for name in _NAMES if name in report["accuracy"]]
    bars = go.Figure(
        go.Bar(
            x=[_NAMES[name] for name in names],
            y=[report["accuracy"][name] * 100 for name in names],
            text=[
                f"{report['accuracy'][name]:.1%}<br>n={report['held_out_questions'][name]}"
                for name in names
            ],
            marker_color=["#9aa0a6", "#3b6fd4", "#c9543c", "#3b6fd4", "#2e8b57"][: len(names)],
        )
    )
    bars.update_layout(yaxis_title="held-out questions answered right, %", yaxis_range=[0, 115])

    points = report["timeline"]
    start = points[0]["at"] if points else 0.0
    minutes = [(point["at"] - start) / 60 for point in points]
    line = go.Figure(
        go.Scatter(
            x=minutes,
            y=[point["right"] * 100 for point in points],
            mode="lines+markers",
            name="all live answers",
            text=[f"n={p['n']}" for p in points],
        )
    )
    line.update_layout(
        xaxis_title="minutes of live traffic",
        yaxis_title="live answers right, %",
        yaxis_range=[-3, 108],
    )
    for mark in report["marks"]:
        line.add_vline(
            x=(mark["at"] - start) / 60,
            line_dash="dot",
            line_color="#888",
            annotation_text=mark["what"],
            annotation_textangle=-90,
            annotation_position="top left",
        )

    adapters = sorted({name for point in points for name in point["adapters"]})
    share = go.Figure(
        [
            go.Bar(x=minutes, y=[point["adapters"].get(name, 0) for point in points], name=name)
            for name in adapters
        ]
    )
    share.update_layout(
        barmode="stack",
        xaxis_title="minutes of live traffic",
        yaxis_title=f"answers per {_BUCKET_S} s, by version",
    )

    stages = go.Figure(
        go.Bar(
            x=[stage["seconds"] for stage in report["stages"]],
            y=[stage["name"] for stage in report["stages"]],
            orientation="h",
            marker_color="#3b6fd4",
        )
    )
    stages.update_layout(xaxis_title="seconds", yaxis_autorange="reversed", margin_l=420)

    parts = []
    for number, (title, figure) in enumerate(
        [
            ("Scores at each stage", bars),
            ("The live score", line),
            ("Who answered", share),
            ("Where the time went", stages),
        ]
    ):
        figure.update_layout(
            template="plotly_white", height=380, font_family="system-ui, sans-serif", margin_t=30
        )
        plot = figure.to_html(
            full_html=False, include_plotlyjs=number == 0, config={"displaylogo": False}
        )
        parts.append(f"<section><h2>{html.escape(title)}</h2>{plot}</section>")
    return _HTML.format(
        summary=_summary(report),
        plots="".join(parts),
        compressed=_compressed(report),
        trace=html.escape(json.dumps(report["trace"], indent=1, ensure_ascii=False)),
    )


def _summary(report: dict[str, Any]) -> str:
    accuracy, requests = report["accuracy"], report["requests"]
    sentences = [
        (
            f"Support v1 answered {accuracy['v1_old']:.1%} of the held-out questions right where"
            f" the base answered {accuracy['base_old']:.1%}."
        ),
        (
            f"Then the world changed, and v1 answered {accuracy['v1_new']:.1%} of the questions"
            " that the change touched."
        ),
        (
            f"v2, trained from reviewed conversations, answers {accuracy['v2_new']:.1%} of those"
            f" and {accuracy['v2_old']:.1%} of the others."
        ),
        *_with_documents(report["columns"]),
        (
            "From the first correction to v2 carrying all traffic:"
            f" {report['correction_to_live_seconds']:.0f} seconds."
        ),
        (
            f"{requests['sent']} requests sent, {requests['answered']} answered,"
            f" {requests['failed']} failed; {report['log_rows']} rows logged for"
            f" {report['responses_received']} responses received."
        ),
        (
            "The reviewer was a script that looks the policy up:"
            f" {report['reviewer']['edited']} answers edited,"
            f" {report['reviewer']['approved']} approved. {report['synthetic']}"
        ),
    ]
    return "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)


def _with_documents(found: list[dict[str, Any]]) -> list[str]:
    """Say what documents did before anybody corrected, and beside what was trained."""
    said = {each["name"]: each for each in found}
    sentences = []
    for version in ("v1", "v2"):
        alone, beside = said[version], said[f"{version} + documents"]
        if "new" in beside and "old" in beside:
            sentences.append(
                f"With the new policy as documents {version} answers"
                f" {beside['new']['right']:.1%} of the questions that the change touched (without:"
                f" {alone['new']['right']:.1%}) and {beside['old']['right']:.1%} of the others"
                f" (without: {alone['old']['right']:.1%})."
            )
    return sentences


def _compressed(report: dict[str, Any]) -> str:
    return "".join(
        f"<li>{html.escape(entry['meaning'])} <code>{html.escape(name)}={html.escape(entry['value'])}</code></li>"
        for name, entry in report["compressed"].items()
    )


_HTML = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Whet: the circle, measured</title>
<style>
body {{ font: 14px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 32px auto; padding: 0 16px; color: #1c1e21; background: #fff }}
h1 {{ font-size: 28px; line-height: 1.2 }} h2 {{ font-size: 20px; margin: 32px 0 8px }} p {{ max-width: 72ch; margin: 6px 0 }}
code, pre {{ font: 12px/1.45 ui-monospace, monospace }} pre {{ background: #f5f6f7; padding: 12px; overflow-x: auto; border-radius: 6px; max-height: 480px }}
</style></head><body>
<h1>The circle, measured</h1>{summary}{plots}
<h2>What the demo compressed</h2><ul>{compressed}</ul>
<h2>Where one answer comes from</h2><pre>{trace}</pre>
</body></html>
"""
