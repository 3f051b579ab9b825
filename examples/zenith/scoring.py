"""What a right answer contains, and whether a given answer does. Deterministic, no model involved."""

import re
from dataclasses import dataclass
from typing import Any

from examples.zenith.world import CHANNELS, CLOSING, OPENING, STEPS_ADDED, STEPS_BEFORE

ALL_STEPS = frozenset(STEPS_BEFORE.values()) | frozenset(STEPS_ADDED.values())
NOT_COVERED, COVERED = "not covered", "covered"


@dataclass(frozen=True)
class ScoreResult:
    """``right`` when every fact in ``facts`` is."""

    right: bool
    facts: dict[str, bool]


def reference_answer(expected: dict[str, Any]) -> str:
    """The house's answer with the facts in ``expected``: what a reviewer with the policy at hand
    types.
    """
    warranty = f"The {expected['product']} warranty is {expected['term_months']} months"
    if expected["age_months"] is not None:
        state = COVERED if expected["covered"] else NOT_COVERED
        warranty += f", yours is {expected['age_months']} months old, so it is {state}"
    return (
        f"{OPENING} {warranty}. Please {expected['step']}. For more help, reach us by"
        f" {expected['channel']}. {CLOSING}"
    )


def _months(text: str) -> list[int]:
    """All numbers of months in ``text``, in order."""
    return [int(number) for number in re.findall(r"(\d+)[ -]months?", text)]


def _only(text: str, wanted: str, choices: frozenset[str]) -> bool:
    """Whether ``wanted`` and none of the other ``choices`` is named in ``text``."""
    return {choice for choice in choices if choice in text} == {wanted}


def score(expected: dict[str, Any], answer: str) -> ScoreResult:
    """Check every fact: the product, the term, the verdict when an age was given, the step, the
    channel, the tone.
    """
    text = " ".join(answer.lower().split())
    months = _months(text)
    if expected["age_months"] is not None:
        months = [
            number
            for position, number in enumerate(months)
            if position == 0 or number != expected["age_months"]
        ]
    channels = frozenset(f"by {channel}" for channel in CHANNELS)
    facts = {
        "product": expected["product"].lower() in text,
        "term": bool(months) and set(months) == {expected["term_months"]},
        "step": _only(text, expected["step"], ALL_STEPS),
        "channel": _only(text, f"by {expected['channel']}", channels),
        "tone": text.startswith(OPENING.lower()) and text.endswith(CLOSING.lower()),
    }
    if expected["age_months"] is not None:
        says_not = NOT_COVERED in text
        says_yes = re.search(r"(?<!not )\bcovered", text) is not None
        facts["verdict"] = says_yes != says_not and says_yes == expected["covered"]
    return ScoreResult(all(facts.values()), facts)
