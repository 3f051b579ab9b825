"""Which conversations are compared: bounded, disjoint, fair to quiet users, and of one version
only.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.rows import row_from_record, shorten
from monitoring.windows import Key, cap_per_user, choose, current_epoch, list_aliases, read_windows
from tests.monitoring.build import HOUR, NOW, insert_records, promote, records
from whet.context import Context
from whet.conversation import last_question
from whet.database import reading

START = NOW - 100 * HOUR


def _keys(n: int, users: int = 0, start: int = 0) -> list[Key]:
    return [
        Key(start + i, f"i{start + i:07d}", f"u{i % users}" if users else None) for i in range(n)
    ]


@given(
    n=st.integers(0, 300),
    users=st.integers(0, 40),
    size=st.integers(1, 120),
    per_user=st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_samples_never_overlap_are_never_longer_than_asked_and_the_reference_comes_first(
    n: int, users: int, size: int, per_user: int
) -> None:
    keys = _keys(n, users)
    reference, window = choose(
        keys[: size * 10], keys[::-1][: size * 10], size=size, per_user=per_user, min_rows=10
    )
    assert len(reference) <= size
    assert len(window) <= size
    assert not {key.id for key in reference} & {key.id for key in window}
    if reference and window:
        assert max(key.created_at for key in reference) < min(key.created_at for key in window)


def test_half_of_little_traffic_is_compared_with_the_other_half_oldest_and_newest_rows_in_each() -> (
    None
):
    keys = _keys(101)
    reference, window = choose(keys, keys[::-1], size=2000, per_user=3, min_rows=10)
    assert [key.created_at for key in reference] == list(range(50))
    assert [key.created_at for key in window] == list(range(50, 101))


def test_a_busy_user_fills_at_most_his_share() -> None:
    keys = sorted(
        _keys(100, users=50) + _keys(500, users=1, start=1000), key=lambda key: key.created_at
    )
    kept = cap_per_user(keys, 3, 2000, 50)
    assert max(Counter(key.end_user for key in kept).values()) == 3


def test_an_application_with_few_users_still_gets_enough_rows() -> None:
    kept = cap_per_user(_keys(1000, users=2), 3, 2000, 50)
    assert 50 <= len(kept) <= 100


def test_the_reference_begins_when_the_live_version_went_live_not_at_its_last_step(
    context: Context,
) -> None:
    promote(context, at=START - 10, digest="a" * 64)
    promote(context, at=START, digest="b" * 64, generation=2)
    promote(context, at=START + HOUR, digest="b" * 64, generation=3, candidate="c" * 64)
    with reading(context.database) as connection:
        epoch = current_epoch(connection, "support")
    assert (epoch.since_at, epoch.stable_digest) == (START, "b" * 64)


def test_aliases_come_from_rollouts_and_from_traffic(context: Context) -> None:
    promote(context, at=START, alias="zeta")
    insert_records(context, records(3, 1, alias="alpha") + records(3, 2, alias="beta"))
    with reading(context.database) as connection:
        assert list_aliases(connection) == ["alpha", "beta", "zeta"]


def test_an_alias_without_a_rollout_is_compared_with_its_first_traffic(context: Context) -> None:
    insert_records(context, records(300, 1, digest=None))
    with reading(context.database) as connection:
        windows = read_windows(connection, "support", now=NOW, size=100, min_rows=50, per_user=3)
    assert (len(windows.reference), len(windows.window), windows.shortage) == (100, 100, "")
    assert windows.reference[0].id == "int_1_000000"
    assert windows.window[-1].id == "int_1_000299"


def test_the_text_of_a_question_is_the_last_user_turn_whatever_the_form() -> None:
    turns = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "no"},
        {"role": "user", "content": [{"type": "text", "text": "last"}, {"type": "image_url"}]},
    ]
    assert last_question({"messages": turns}) == "last"
    assert last_question({"prompt": ["one", "two"]}) == "one\ntwo"
    assert last_question({"input": "asked"}) == "asked"
    for odd in (
        {},
        {"messages": "x"},
        {"messages": [1, None]},
        {"messages": [{"role": "user", "content": None}]},
        {"prompt": [1, 2]},
        {"prompt": 5},
    ):
        assert last_question(odd) == ""
    assert len(shorten("x" * 100_000)) < 2100


def test_a_row_holds_a_continued_answer_whole_and_knows_calls_of_both_routes() -> None:
    (record,) = records(1, 1)
    begun = {"role": "assistant", "content": "It lasts"}
    request = {
        "messages": [{"role": "user", "content": "q"}, begun],
        "continue_final_message": True,
    }
    older = {**record, "request": request, "response": None, "response_text": " 48 months."}
    assert row_from_record(older).answer == "It lasts 48 months."
    assert row_from_record(older).question == "q"
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    assert row_from_record({**record, "response": {"output": [call]}}).calls_tools
    assert row_from_record({**record, "response": {"tool_calls": [{}]}}).calls_tools
    assert not row_from_record({**record, "response": {"output": []}}).calls_tools
