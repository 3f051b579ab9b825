"""What an answer shares with its passages, marked on both sides."""

from __future__ import annotations

import random

import pytest

from whet.text_overlap import Piece, find_overlap, overlap_share

LAMPS = "Lamps are covered for 36 months from the day of delivery. Keep the invoice."
KETTLES = "Kettles are covered for 24 months."


def marked(pieces: list[Piece]) -> list[tuple[str, tuple[int, ...]]]:
    return [(piece.text, piece.passages) for piece in pieces if piece.is_shared]


def test_runs_are_marked_in_answer_and_passage() -> None:
    found = find_overlap("Yes: lamps are covered for 36 months [1].", [LAMPS, KETTLES])
    assert marked(found.answer) == [("lamps are covered for 36 months", (1,))]
    assert marked(found.passages[0]) == [("Lamps are covered for 36 months", (1,))]
    assert marked(found.passages[1]) == [], "of `are covered for` one word alone says something"
    assert found.share == pytest.approx(6 / 7), "the mark [1] is no word of the answer"
    assert found.shares == pytest.approx([6 / 7, 0])


def test_a_piece_names_every_passage_that_has_it() -> None:
    found = find_overlap("Keep the invoice, 36 months.", [LAMPS, "Keep the invoice for 24 months."])
    assert marked(found.answer) == [("Keep the invoice", (1, 2)), ("36", (1,))]


def test_texts_of_one_word_repeated_take_no_long_time() -> None:
    found = find_overlap("lamp lamp kettle " * 5000, ["lamp lamp kettle " * 5000])
    assert found.share == 1


@pytest.mark.parametrize(
    ("answer", "passage", "expected"),
    [
        ("It takes 14 days.", "Send it within 14 weeks", ["14"]),
        ("Set max_connections higher.", "See max_connections.", ["max_connections"]),
        ("It costs 2.5 now", "costs 2 5", []),
        ("1. Press it", "1. Press that", []),  # a single digit numbers lists
        ("It is [12].", "Chapter 12", []),  # a citation is no number of the answer
        ("it is in the box", "it is in the bag", []),  # words that only join others
        ("Opened articles", "opened articles", []),  # two words are a subject, not a quotation
        ("OPENED ARTICLES return", "opened articles return", ["OPENED ARTICLES return"]),
    ],
)
def test_what_alone_shows_where_it_comes_from(
    answer: str, passage: str, expected: list[str]
) -> None:
    assert [text for text, _ in marked(find_overlap(answer, [passage]).answer)] == expected


@pytest.mark.parametrize(
    ("answer", "passages", "share"),
    [
        ("The lamp needs 40 watts.", ["A lamp: the lamp needs 40 watts at most."], 1.0),
        ("It costs 1,200 euros a year.", ["It costs 1,300 euros a year."], 3 / 6),
        ("It takes 14 days [1].", ["Send it within 14 weeks", "within days"], 1 / 4),
        ("Completely different words here", ["The lamp needs 40 watts."], 0.0),
        ("The lamp needs 40 watts.", [], None),
        ("", ["The lamp"], None),
    ],
)
def test_the_share_is_of_what_is_marked(
    answer: str, passages: list[str], share: float | None
) -> None:
    expected = None if share is None else pytest.approx(share)
    assert overlap_share(answer, passages) == expected == find_overlap(answer, passages).share


def test_texts_without_words_have_no_share() -> None:
    assert find_overlap("…", [LAMPS]).share is None
    assert find_overlap("", []).answer == []


def test_pieces_joined_are_the_text() -> None:
    draw = random.Random(7)
    letters = ["lamp", "36", "are", "the", "[1]", "\n", ". ", "<b>", "a_b", "é", "  ", "-"]
    for _ in range(300):
        answer, first, second = (
            "".join(draw.choice(letters) for _ in range(draw.randrange(40))) for _ in range(3)
        )
        found = find_overlap(answer, [first, second])
        assert "".join(piece.text for piece in found.answer) == answer
        assert ["".join(piece.text for piece in one) for one in found.passages] == [first, second]
