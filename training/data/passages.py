"""Passages of an alias's collection, and rows that are given those which bear on them.

What is retrieved for an alias is decided by serving (`retrieval_defaults`); here its documents are
read, so that versions can be judged and trained on passages where the rows have none.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection, select

from training.data.counterfactual import key_facts
from training.data.rows import Row
from training.data.similar import words
from whet.rag_prompt import format_passage
from whet.tables import documents, passages, retrieval_defaults

# An alias whose rows have passages in fewer cases answers from documents now and then; it is no
# alias that retrieves.
_RETRIEVES = 0.05
_MOST_PASSAGES = 20_000  # of a collection that are looked through: a second or two
_GIVEN = 3  # passages to a row, the best ones


def has_default(connection: Connection, alias: str) -> bool:
    """Return whether the gateway retrieves for every request of the alias."""
    query = select(retrieval_defaults.c.alias).where(retrieval_defaults.c.alias == alias)
    return connection.execute(query).first() is not None


def retrieves(rows: Sequence[Row], *, by_default: bool) -> bool:
    """Return whether the alias of these rows answers from passages."""
    given = sum(bool(row.context) for row in rows)
    return by_default or (given > 0 and given >= _RETRIEVES * len(rows))


def load_passages(connection: Connection, alias: str) -> list[str]:
    """Return the passages of the alias's default collection, as a prompt has them; at most 20,000."""
    query = (
        select(documents.c.title, documents.c.address, passages.c.section, passages.c.text)
        .join(retrieval_defaults, retrieval_defaults.c.collection == passages.c.collection)
        .join(documents, documents.c.id == passages.c.document_id)
        .where(retrieval_defaults.c.alias == alias, documents.c.state == "indexed")
        .order_by(passages.c.document_id, passages.c.position)
        .limit(_MOST_PASSAGES)
    )
    return [format_passage(dict(row._mapping)) for row in connection.execute(query)]


def with_passages(
    rows: Sequence[Row], texts: Sequence[str], manner: frozenset[str] = frozenset()
) -> list[Row]:
    """Return the rows that a key fact of their answer is found for in `texts`, with the passages
    that share most words with question and answer. Rows that have passages are left out.
    """
    holders: dict[str, set[int]] = defaultdict(set)
    for number, text in enumerate(texts):
        for word in set(words(text)):
            holders[word].add(number)
    found = []
    for row in rows:
        if row.context or row.is_text or row.calls:
            continue
        scores: dict[int, float] = defaultdict(float)
        for word in set(words(" ".join([_question(row), row.words]))):
            for number in holders.get(word, ()):
                scores[number] += math.log(1 + len(texts) / len(holders[word]))
        order = sorted(scores, key=lambda number: (-scores[number], number))
        best = [texts[number] for number in order[:_GIVEN]]
        given = replace(row, context=tuple(best))
        if best and key_facts(given, manner):
            found.append(given)
    return found


def _question(row: Row) -> str:
    asked = [str(message["content"]) for message in row.messages if message["role"] == "user"]
    return asked[-1] if asked else ""
