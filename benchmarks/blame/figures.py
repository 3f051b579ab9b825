"""Writes the tables of the results."""

from __future__ import annotations

from typing import Any

from serving.blame.records import Fault

BEGIN, END = "<!-- blame: begin -->", "<!-- blame: end -->"
_TITLES = {"real": "The built-in base and two adapters", "scripted": "Scripted engines"}
_NAMES = {Fault.NONE.value: "no fault", Fault.UNKNOWN.value: "cannot tell"}


def tables(results: dict[str, Any]) -> str:
    """Return the Markdown of all parts that were measured."""
    return "\n\n".join(_part(name, results[name]) for name in _TITLES if name in results)


def _part(name: str, result: dict[str, Any]) -> str:
    columns = [fault.value for fault in Fault]
    head = ["planted", *(_NAMES.get(each, each) for each in columns)]
    lines = [
        f"### {_TITLES[name]}",
        "",
        _sentence(result),
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
    ]
    for kind, counts in result["confusion"].items():
        cells = [str(counts.get(each, "")) for each in columns]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _sentence(result: dict[str, Any]) -> str:
    share = result["named_right"] / max(1, result["faults"])
    accuracy = result["named_right"] / max(1, result["named"])
    return (
        f"{result['named_right']} of {result['faults']} faults named right ({share:.1%}; "
        f"{result['named']} got a verdict, {accuracy:.1%} of them right), "
        f"{result['controls_blamed']} of {result['controls']} controls blamed. Of the adapter's "
        f"two faults, {result['detail_right']} of {result['detail_asked']} were told apart. "
        f"{result['answers_per_case']} answers a case. Seed {result['seed']}, templates "
        f"`{result['templates']}`, {result['at']}, load {result['load']}."
    )
