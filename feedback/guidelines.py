"""Guidelines: what reviewers of an alias go by, as Markdown in versions that never change."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, Engine, insert, select
from sqlalchemy.exc import IntegrityError

from whet.auditlog import record
from whet.database import writing
from whet.errors import ConflictError, InputError
from whet.tables import review_guidelines

LONGEST = 20_000  # characters: ten pages, more than anybody keeps in mind


@dataclass(frozen=True, slots=True)
class Guideline:
    """One version. An empty text takes the guideline back."""

    alias: str
    version: int
    text: str
    created_by: str
    created_at: int


def load_guideline(connection: Connection, alias: str) -> Guideline | None:
    """Return the newest version of an alias; None where there is none, or it was taken back."""
    newest = next(iter(list_versions(connection, alias, limit=1)), None)
    return newest if newest is not None and newest.text else None


def list_versions(connection: Connection, alias: str, *, limit: int = 50) -> list[Guideline]:
    """Return the versions of an alias, newest first."""
    query = (
        select(review_guidelines)
        .where(review_guidelines.c.alias == alias)
        .order_by(review_guidelines.c.version.desc())
        .limit(limit)
    )
    return [Guideline(**row._mapping) for row in connection.execute(query)]


def save_guideline(
    database: Engine, alias: str, text: str, *, after: int, actor: str, now: int
) -> Guideline:
    """Write the version that follows `after`, the one that the editor was opened with.

    Raises InputError for a text that is too long, ConflictError where somebody wrote another
    version meanwhile. The same text again is no new version.
    """
    text = text.strip()
    if len(text) > LONGEST:
        raise InputError(
            f"The guideline has {len(text):,} characters; expected at most {LONGEST:,}.",
            hint="Keep what decides a case, and link to the rest.",
        )
    if "\x00" in text:
        raise InputError("The guideline contains a NUL character.", hint="Remove it.")
    try:
        with writing(database) as connection:
            newest = next(iter(list_versions(connection, alias, limit=1)), None)
            current = newest.version if newest else 0
            if newest is not None and newest.text == text:
                return newest
            if current != after:
                raise _changed_meanwhile(alias, current)
            made = Guideline(alias, current + 1, text, actor, now)
            connection.execute(
                insert(review_guidelines).values(
                    alias=alias, version=made.version, text=text, created_by=actor, created_at=now
                )
            )
            record(
                connection, actor=actor, action="review.guideline", subject=alias,
                detail={"version": made.version, "characters": len(text)}, now=now,
            )  # fmt: skip
            return made
    except IntegrityError as error:  # PostgreSQL: another transaction wrote this version first
        raise _changed_meanwhile(alias, after + 1) from error


def _changed_meanwhile(alias: str, version: int) -> ConflictError:
    return ConflictError(
        f"The guideline of {alias} was changed meanwhile; it is at version {version}.",
        hint="Copy your text, load the page again and put it into the newest version.",
    )
