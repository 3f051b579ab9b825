"""The model card says what is known of a version on the day it leaves, not on the day it was
stored.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests import builders
from tests.web import NOW
from training.adapters.model_card import model_card
from training.evaluation.report import newest_judged
from whet.context import Context
from whet.database import reading, writing
from whet.registry import Adapter, find_adapter

MEASURE = {
    "name": "exact match",
    "n": 40,
    "values": {"candidate": 0.725},
    "against": {"the base": {"difference": 0.5, "low": 0.3, "high": 0.7, "verdict": "better"}},
}
REPORT = {
    "format": 1,
    "measures": {"old": [MEASURE]},
    "probes": {"forgetting": [], "bias": [], "safety": []},
}


def version(context: Context) -> Adapter:
    with writing(context.database) as connection:
        return find_adapter(connection, builders.add_adapter(connection, NOW, gate="none"))


def judge(
    context: Context, adapter: Adapter, at: int, verdict: str, reason: str, **over: Any
) -> str:
    with writing(context.database) as connection:
        return builders.add_evaluation(
            connection,
            at,
            adapter=adapter.digest,
            dataset="d",
            verdict=verdict,
            reason=reason,
            **over,
        )


def card(context: Context, adapter: Adapter) -> str:
    with reading(context.database) as connection:
        return model_card(
            find_adapter(connection, adapter.digest), newest_judged(context, adapter), merged=False
        )


def test_a_version_that_was_judged_after_it_was_stored_has_its_newest_evaluation(
    context: Context,
) -> None:
    """Its own card, written when it was stored, says nothing of it: "It was never judged" stood
    here of versions that had failed.
    """
    adapter = version(context)
    assert "never judged" in card(context, adapter)
    judge(context, adapter, NOW, "pass", "Better than the base.")
    context.store.put_json("evaluations/later/report.json", REPORT)
    judge(
        context,
        adapter,
        NOW + 1000,
        "fail",
        "Worse on 40 old rows.",
        samples_path="evaluations/later/samples.jsonl",
    )
    text = card(context, adapter)
    assert (
        "Gate: fail" in text
        and "Worse on 40 old rows." in text
        and "never judged" not in text
        and "Better than" not in text
    )
    assert "| exact match | 40 | 0.725 | +0.500 (+0.300 to +0.700) | the base | better |" in text
    judge(context, adapter, NOW + 2000, "pass", "Better on 40 old rows.")
    assert "exact match" not in card(context, adapter), (
        "an older report's figures are not the newest evaluation's"
    )


@pytest.mark.parametrize("later", ["", "fail"])
def test_a_signature_stands_beside_the_verdict_that_it_is_for_until_it_is_void(
    context: Context, later: str
) -> None:
    adapter = version(context)
    judged = judge(context, adapter, NOW, "fail", "Only 38 of 40 are still right.")
    signed = {
        "by": "ola",
        "reason": "the *policy* changed",
        "evaluation": judged,
        "conversations": ["c-1", "c-2"],
    }
    judge(context, adapter, NOW + 1000, "signed", "Signed by ola.", thresholds={"signed": signed})
    if later:
        judge(context, adapter, NOW + 2000, later, "Only 30 of 40 are still right.")
    text = card(context, adapter)
    assert "Gate: fail" in text and ("Only 30 of 40" if later else "Only 38 of 40") in text
    assert (
        r"Signed by ola for 2 reviewed conversations that it breaks: the \*policy\* changed" in text
    ) == (not later)
