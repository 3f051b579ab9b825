"""Queries on `passage_vectors`: the vectors of texts, by hash of the text and embedder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from whet.database import insert_ignore
from whet.tables import passage_vectors

_BATCH = 500  # hashes in one statement, below every database's limit of parameters
_DTYPE = np.dtype("<f2")


def read_vectors(
    connection: Connection, hashes: Iterable[str], embedder: str
) -> dict[str, NDArray[np.float16]]:
    """Return the vectors that are there, by hash of the text."""
    wanted, table = sorted(set(hashes)), passage_vectors
    found: dict[str, NDArray[np.float16]] = {}
    for at in range(0, len(wanted), _BATCH):
        rows = connection.execute(
            select(table.c.text_sha256, table.c.vector).where(
                table.c.embedder == embedder, table.c.text_sha256.in_(wanted[at : at + _BATCH])
            )
        )
        found.update((row.text_sha256, np.frombuffer(row.vector, _DTYPE)) for row in rows)
    return found


def hashes_with_vectors(connection: Connection, hashes: Iterable[str], embedder: str) -> set[str]:
    """Return those of the hashes whose vector is there."""
    wanted, table = sorted(set(hashes)), passage_vectors
    found: set[str] = set()
    for at in range(0, len(wanted), _BATCH):
        found |= set(
            connection.execute(
                select(table.c.text_sha256).where(
                    table.c.embedder == embedder, table.c.text_sha256.in_(wanted[at : at + _BATCH])
                )
            ).scalars()
        )
    return found


def write_vectors(
    connection: Connection, vectors: Mapping[str, NDArray[np.float32]], embedder: str
) -> None:
    """Keep vectors by hash of the text; one that is there stays."""
    rows = [
        {"text_sha256": digest, "embedder": embedder, "vector": vector.astype(_DTYPE).tobytes()}
        for digest, vector in vectors.items()
    ]
    if rows:
        connection.execute(insert_ignore(connection, passage_vectors), rows)
