"""The full-text index: as the log is, seconds later; what is erased is gone from its file too."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select, text

from serving.jobs import erase_conversations, jobs
from serving.search_index import index_store
from serving.search_index.entries import make_entry
from serving.search_index.indexing import Indexer, index_all
from serving.search_index.query import (
    NumberRange,
    Phrase,
    SearchQuery,
    count_hits,
    newest_hits,
    order_hits,
    read_phrase,
)
from serving.search_index.tokens import EVERY_ROW, fold_in_place, split_tokens
from tests import builders
from tests.builders import DAY, MINUTE
from whet.access import hash_key
from whet.context import Context
from whet.database import reading, truncate_wal, writing
from whet.ids import new_id
from whet.retention import Pace
from whet.tables import erasures, interaction_search, interactions

NOW = 20_500 * DAY
ALL = NumberRange(0, 2**62)


def indexer(context: Context) -> Indexer:
    return Indexer(context.database, Pace(sleep=lambda _: None))


def found(context: Context, *words: str, without: tuple[str, ...] = ()) -> list[str]:
    """Ids of the interactions that have the words, newest first."""
    wanted = tuple(phrase for word in words if (phrase := read_phrase(word)))
    unwanted = tuple(phrase for word in without if (phrase := read_phrase(word)))
    with reading(context.database) as connection:
        hits = newest_hits(connection, SearchQuery(wanted, unwanted), ALL, 1_000)
        assert hits == sorted(hits, reverse=True), "newest first"
        assert count_hits(connection, SearchQuery(wanted, unwanted), ALL, 1_000) == len(hits)
        query = select(interaction_search.c.number, interaction_search.c.interaction_id)
        ids = {row.number: row.interaction_id for row in connection.execute(query)}
    return [ids[number] for number in hits]


@pytest.mark.parametrize(
    ("written", "tokens"),
    [
        ("It's 24_Monate, OK?", ["it", "s", "24", "monate", "ok"]),
        ("Würfel STRASSE Straße Ñandú", ["wurfel", "strasse", "strasse", "nandu"]),
        ("東京 tower", ["東", "京", "tower"]),
        ("한국어 हिन्दी", ["한국어", "हिन्दी"]),
        ("e\u0301te\u0301", ["ete"]),
        ("\ud800 = ' \" \\ * \0", []),
        ("x" * 130, ["x" * 64, "x" * 64, "xx"]),
    ],
)
def test_words_are_compared_without_case_accents_and_marks(written: str, tokens: list[str]) -> None:
    assert split_tokens(written) == tokens
    assert len(fold_in_place(written)) == len(written)


def test_an_entry_holds_question_answer_and_tokens_of_its_filters() -> None:
    row = builders.interaction_row(
        NOW, question="Where is it?", answer="Here.", end_user="ada", metadata={"plan": "pro"}
    )
    entry = make_entry(row, [-1])
    words = [token for token in entry.tokens if not token.startswith("=")]
    assert words == ["where", "is", "it", "here"]
    assert entry.tokens.index(EVERY_ROW) == 3, "no phrase goes from the question into the answer"
    fields = [token for token in entry.tokens if token.startswith("=") and token != EVERY_ROW]
    assert len(fields) == 8, "status, alias, version, user, two of the tag, two of the rating"


def test_new_rows_ratings_late_rows_and_deletions_reach_the_index(context: Context) -> None:
    own = indexer(context)
    with writing(context.database) as connection:
        new = builders.add_interaction(connection, NOW - 1_000, answer="needle one")
        late = builders.add_interaction(connection, NOW - DAY, answer="needle two")
    assert own.index_recent(NOW) == 1 and found(context, "needle") == [new]
    assert own.index_recent(NOW) == 0, "nothing is indexed twice"
    assert own.index_late() == (1, 0) and found(context, "needle") == [new, late]
    down = f"=rating{hashlib.blake2b(b'down', digest_size=8).hexdigest()}"
    rated = SearchQuery((Phrase((down,)),))
    with writing(context.database) as connection:
        builders.add_rating(connection, late, NOW, rating=-1)
    assert own.index_recent(NOW) == 1 and own.index_recent(NOW) == 0
    with reading(context.database) as connection:
        assert len(newest_hits(connection, rated, ALL, 9)) == 1
    with writing(context.database) as connection:
        connection.execute(delete(interactions).where(interactions.c.id == late))
    assert own.index_late() == (0, 1) and found(context, "needle") == [new]


def test_searches_agree_on_words_phrases_beginnings_and_what_is_not_there(
    context: Context,
) -> None:
    with writing(context.database) as connection:
        one = builders.add_interaction(
            connection, NOW - 1, question="order status", answer="refund of the order"
        )
        two = builders.add_interaction(
            connection, NOW - 2, question="status", answer="order refunded 東京タワー"
        )
    index_all(context)
    assert found(context, "ORDER") == [one, two] and found(context, "Status", "order") == [one, two]
    assert found(context, "order status") == [one]
    assert found(context, "status order") == [], "the phrase goes over the end of the question"
    assert found(context, "status refund") == [], "as above"
    assert found(context, "refund") == [one] and found(context, "refund*") == [one, two]
    assert found(context, "京タ") == [two]
    assert found(context, "order", without=("refunded",)) == [one]
    assert found(context, without=("refunded",)) == [one]
    assert found(context, "' OR 1=1 --") == [] and found(context, 'NEAR("a b")') == []


def test_more_rows_of_a_millisecond_than_numbers_are_all_found(context: Context) -> None:
    with writing(context.database) as connection:
        rows = [builders.interaction_row(NOW, answer="needle") for _ in range(40)]
        connection.execute(insert(interactions), rows)
        after = builders.add_interaction(connection, NOW + 1, answer="needle")
    assert index_all(context) == 41
    assert set(found(context, "needle")) == {row["id"] for row in rows} | {after}


def test_postgresql_looks_behind_the_newest_rows(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.search_index.query._WALK_ROWS", 3)
    with writing(context.database) as connection:
        ids = [
            builders.add_interaction(
                connection, NOW - at * 7 * MINUTE, answer="needle" if at % 5 == 4 else "hay"
            )
            for at in range(30)
        ]
    index_all(context)
    assert found(context, "needle") == ids[4::5]
    with reading(context.database) as connection:
        hits = newest_hits(connection, SearchQuery((Phrase(("needle",)),)), ALL, 2)
        assert len(hits) == 2
        slowest = order_hits(connection, hits, "ttft_ms", descending=True, limit=9, offset=0)
        assert sorted(slowest, reverse=True) == hits


def _secret_word(of: str) -> str:
    """A word whose letters no other word shares, so that the index cannot shorten it."""
    return hashlib.sha256(of.encode()).hexdigest()[:40]


def _words_in_files(folder: Path, words: list[str]) -> set[str]:
    """Which words lie in a file: their end, as FTS5 keeps only that where the beginning is
    shared."""
    files = [path.read_bytes() for path in folder.rglob("whet.db*") if path.is_file()]
    return {word for word in words if any(word[8:].encode() in content for content in files)}


def _plant(context: Context, at: int, count: int, of: str) -> list[str]:
    words = [_secret_word(f"{of}-{number}") for number in range(count)]
    with writing(context.database) as connection:
        for number, word in enumerate(words):
            builders.add_interaction(connection, at + number, answer=word, end_user=of)
    index_all(context, sleep=lambda _: None)
    return words


def test_erased_words_are_gone_from_the_index_and_its_file(sqlite_context: Context) -> None:
    context, folder = sqlite_context, sqlite_context.settings.home
    gone = _plant(context, NOW - DAY, 60, "ada")
    kept = _plant(context, NOW - DAY, 60, "bob")
    truncate_wal(context.database)
    assert _words_in_files(folder, gone) == set(gone), "the search finds what is there"
    with writing(context.database) as connection:
        connection.execute(
            insert(erasures).values(
                id=new_id("era", at=NOW), subject_hash=hash_key("ada", context.secret),
                requested_by="test", receipt={}, created_at=NOW,
            )
        )  # fmt: skip
    assert erase_conversations(context, NOW)
    assert found(context, gone[0]) == [] and len(found(context, kept[0])) == 1
    assert _words_in_files(folder, gone) == set()
    assert _words_in_files(folder, kept) == set(kept)


def test_a_night_takes_old_words_out_of_the_index_and_its_file(sqlite_context: Context) -> None:
    context, folder = sqlite_context, sqlite_context.settings.home
    old = NOW - (context.settings.retention_days + 2) * DAY
    gone, kept = _plant(context, old, 60, "ada"), _plant(context, NOW - DAY, 60, "bob")
    truncate_wal(context.database)
    assert _words_in_files(folder, gone) == set(gone)
    night = next(job for job in jobs(context) if job.name == "log-retention")
    assert night.run(NOW)
    assert _words_in_files(folder, gone) == set()
    assert _words_in_files(folder, kept) == set(kept)


def test_without_merging_the_words_of_deleted_rows_stay_in_the_file(
    sqlite_context: Context,
) -> None:
    """The planted fault of the two tests above."""
    gone = [_secret_word(f"ada-{number}") for number in range(60)]
    with writing(sqlite_context.database) as connection:  # as one segment, which nothing merges
        ids = [builders.add_interaction(connection, NOW, answer=word) for word in gone]
        index_store.write_entries(connection, index_store.load_entries(connection, ids))
    with writing(sqlite_context.database) as connection:
        index_store.delete_entries(connection, ids[1:])  # of all, FTS5 would begin anew
    truncate_wal(sqlite_context.database)
    assert _words_in_files(sqlite_context.settings.home, gone)


def test_sqlite_finds_its_index_sound(sqlite_context: Context) -> None:
    _plant(sqlite_context, NOW - DAY, 300, "ada")
    own = indexer(sqlite_context)
    with writing(sqlite_context.database) as connection:
        ids = list(connection.scalars(select(interactions.c.id)))
        connection.execute(delete(interactions).where(interactions.c.id.in_(ids[::2])))
    assert own.index_late() == (0, 150)
    with writing(sqlite_context.database) as connection:
        check = "INSERT INTO interaction_words (interaction_words, rank) VALUES"
        connection.execute(text(f"{check} ('integrity-check', 1)"))
