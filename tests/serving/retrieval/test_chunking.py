"""Chunks follow a document's structure, fit their limit, and lose nothing."""

from __future__ import annotations

import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.retrieval.chunking import Chunk, chunk, shorten_title
from serving.retrieval.parsing.blocks import Block, Kind
from serving.retrieval.passages import embedded_text
from tests.serving.retrieval.counting import count_tokens

_WORDS = re.compile(r"\w")


def heading(text: str, level: int = 1) -> Block:
    return Block(Kind.HEADING, text, level)


def prose(text: str) -> Block:
    return Block(Kind.PARAGRAPH, text)


def words(number: int, word: str = "word") -> str:
    return " ".join(f"{word}{at}" for at in range(number))


def chunks(*blocks: Block, limit: int = 60, title: str = "Guide") -> list[Chunk]:
    return chunk(title, blocks, limit, count_tokens)


def test_sections_are_not_mixed_when_they_are_large() -> None:
    made = chunks(
        heading("Guide"), heading("One", 2), prose(words(30)), heading("Two", 2), prose(words(30))
    )
    assert [one.section for one in made] == ["Guide > One", "Guide > Two"]


def test_small_neighbours_under_one_heading_are_joined_with_their_names() -> None:
    made = chunks(
        heading("Guide"), heading("One", 2), prose("First."), heading("Two", 2), prose("Second.")
    )
    assert [(one.section, one.text) for one in made] == [("Guide", "One\nFirst.\nTwo\nSecond.")]


def test_small_sections_beside_the_title_are_joined_too() -> None:
    made = chunks(heading("VACUUM", 2), prose("Cleans."), heading("Synopsis", 2), prose("VACUUM;"))
    assert [(one.section, one.text) for one in made] == [("", "VACUUM\nCleans.\nSynopsis\nVACUUM;")]


def test_small_sections_of_different_parents_stay_apart() -> None:
    made = chunks(
        heading("A"), heading("x", 2), prose("First."), heading("B"), heading("y", 2), prose("Z.")
    )
    assert [one.section for one in made] == ["A > x", "B > y"]


def test_paragraph_is_divided_between_sentences() -> None:
    first, second = f"{words(30)}.", f"{words(30, 'other')}."
    assert [one.text for one in chunks(prose(f"{first} {second}"))] == [first, second]


def test_table_and_code_stay_whole_where_they_fit() -> None:
    code = Block(Kind.CODE, "a = 1\n\nb = 2")
    table = Block(Kind.TABLE, "Name | Value\nx | 1", has_header=True)
    made = chunks(prose(words(52)), code, table)
    assert [one.text for one in made] == [words(52), "a = 1\n\nb = 2\nName | Value\nx | 1"]


def test_long_table_repeats_its_header() -> None:
    rows = "\n".join(f"row{number} | {words(5)}" for number in range(20))
    made = chunks(Block(Kind.TABLE, f"Name | Value\n{rows}", has_header=True))
    assert len(made) > 2
    assert all(one.text.startswith("Name | Value\nrow") for one in made)


def test_long_code_is_divided_between_lines() -> None:
    lines = [f"call_{number}(a, b)" for number in range(40)]
    made = chunks(Block(Kind.CODE, "\n".join(lines)))
    assert "\n".join(one.text for one in made).split("\n") == lines


def test_term_goes_with_its_description() -> None:
    made = chunks(prose(words(45)), Block(Kind.TERM, "autovacuum"), prose(words(40)))
    assert [one.text.split("\n")[0] for one in made] == [words(45), "autovacuum"]


def test_terms_without_descriptions_fill_passages() -> None:
    made = chunks(*(Block(Kind.TERM, f"term {number}") for number in range(30)))
    assert len(made) == 2


def test_each_record_is_a_passage() -> None:
    made = chunks(Block(Kind.RECORD, "name: a"), Block(Kind.RECORD, "name: b"))
    assert [one.text for one in made] == ["name: a", "name: b"]


def test_pages_are_those_of_the_beginning() -> None:
    made = chunks(
        Block(Kind.PARAGRAPH, words(40), page=3), Block(Kind.PARAGRAPH, words(40), page=4)
    )
    assert [one.page for one in made] == [3, 4]


_TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=400),
    st.lists(st.sampled_from(["alpha", "beta.", "ＡＢ。", "x" * 90, "|"]), min_size=1, max_size=120)
    .map(" ".join),
)  # fmt: skip
_BLOCKS = st.builds(
    Block,
    kind=st.sampled_from(list(Kind)),
    text=_TEXTS,
    level=st.integers(1, 4),
    page=st.none() | st.integers(1, 3),
    has_header=st.booleans(),
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(blocks=st.lists(_BLOCKS, max_size=12), title=_TEXTS, limit=st.sampled_from([32, 64, 200]))
def test_every_chunk_fits_and_no_text_is_lost(blocks: list[Block], title: str, limit: int) -> None:
    title = shorten_title(title, limit, count_tokens)
    made = chunk(title, blocks, limit, count_tokens)
    for one in made:
        told = count_tokens(embedded_text(title, one.section, one.text))
        assert one.tokens == told <= limit
    if not any(block.has_header for block in blocks):  # headers are repeated
        before = "".join(b.text for b in blocks if b.kind is not Kind.HEADING)
        after = "".join(one.text for one in made)
        kept = _letters(after)
        assert all(kept.get(letter, 0) >= many for letter, many in _letters(before).items())


def _letters(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for letter in _WORDS.findall(text):
        found[letter] = found.get(letter, 0) + 1
    return found
