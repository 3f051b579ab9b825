"""The only writer of `answer_votes`: people's votes on the stored answers of an evaluation, and
what they come to on the evaluation's own row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

from sqlalchemy import Connection, delete, insert, select, update

from training.evaluation import votes
from training.evaluation.answers import Answer
from training.evaluation.opinion import (
    TIE,
    newest_answered,
    read_samples,
    stored_opinion,
)
from training.evaluation.votes import NONE, Ballot
from training.store.evaluation_types import (
    BASE,
    CANDIDATE,
    OTHER,
    EvaluationRow,
    PeopleSay,
    Sample,
    VotesSummary,
)
from training.store.table_rows import evaluation_row
from whet.context import Context
from whet.database import reading, writing
from whet.errors import InputError, NotFoundError
from whet.records.training import EVALUATION_PEOPLE, VOTE_PLACES
from whet.registry import Adapter
from whet.tables import adapters, answer_votes, evaluations

_BASE_FILE = "base.json"


@dataclass(frozen=True)
class Case:
    """The answers of an evaluation, ready to be voted on."""

    id: str  # the evaluation that votes name
    samples_path: str
    adapter_digest: str
    # As stored, with `base` where the base's answer to the row is known
    samples: list[Sample]
    names: dict[str, str]  # role → label

    def sample(self, row_id: str) -> Sample:
        """Raises NotFoundError for a row that is not of this evaluation, or that both answer alike."""
        found = next((sample for sample in self.samples if sample["id"] == row_id), None)
        if found is None:
            raise NotFoundError(
                "This evaluation has no such row.",
                hint="Open the comparison again from the version's page.",
            )
        if not votes.differing([found]):
            raise NotFoundError(
                "Both versions answer this row alike, so there is nothing to vote on.",
                hint="It counts as a tie.",
            )
        return found


def keep_base(context: Context, samples_path: str, answers: Mapping[str, Answer]) -> None:
    """Store the base's answers to rows beside those of the two versions that were compared."""
    context.store.put_json(
        _base_path(samples_path), {row: asdict(answer) for row, answer in answers.items()}
    )


def _base_path(samples_path: str) -> str:
    return str(PurePosixPath(samples_path).with_name(_BASE_FILE))


def case_of(context: Context, evaluation_id: str) -> Case:
    """The answers of an evaluation.

    Raises NotFoundError where there is no such evaluation, or it kept no answers.
    """
    with reading(context.database) as connection:
        row = connection.execute(
            select(evaluations).where(evaluations.c.id == evaluation_id)
        ).first()
    if row is None:
        raise NotFoundError(
            "There is no such evaluation.", hint="A version's page links to its own."
        )
    return _case(context, evaluation_row(row))


def newest_case(context: Context, adapter: Adapter) -> Case:
    """The answers of a version's newest evaluation. Raises NotFoundError."""
    return _case(context, newest_answered(context, adapter))


def _case(context: Context, row: EvaluationRow) -> Case:
    path, digest = row["samples_path"], row["adapter_digest"]
    if path is None or not context.store.exists(path):
        raise NotFoundError(
            "This evaluation kept no answers to compare.",
            hint="Answers are kept when rows were held out to judge by.",
        )
    with reading(context.database) as connection:
        # A signature is an evaluation too, with the answers of the one that it signs for: votes
        # stay with the first.
        first = select(evaluations.c.id).where(
            evaluations.c.samples_path == path, evaluations.c.adapter_digest == digest
        )
        case_id = connection.execute(
            first.order_by(evaluations.c.created_at, evaluations.c.id).limit(1)
        ).scalar_one()
        names = {
            CANDIDATE: _label(connection, digest),
            OTHER: _label(connection, row["against_digest"]),
        }
    samples = read_samples(context, path)
    if context.store.exists(_base_path(path)):
        plain = context.store.read_json(_base_path(path))
        samples = [
            {**sample, BASE: plain[sample["id"]]} if sample["id"] in plain else sample
            for sample in samples
        ]
        names[BASE] = "the base"
    return Case(str(case_id), path, digest, samples, names)


def _label(connection: Connection, digest: str | None) -> str:
    if digest is None:
        return "the base"
    row = connection.execute(
        select(adapters.c.name, adapters.c.version).where(adapters.c.digest == digest)
    ).first()
    return f"{row.name}@v{row.version}" if row else "a version that was removed"


def ballots_of(connection: Connection, case_id: str, voter: str | None = None) -> list[Ballot]:
    """Everybody's votes on an evaluation, or one person's; oldest first."""
    query = (
        select(answer_votes)
        .where(answer_votes.c.evaluation_id == case_id)
        .order_by(answer_votes.c.created_at, answer_votes.c.row_id)
    )
    if voter is not None:
        query = query.where(answer_votes.c.voter == voter)
    return [
        Ballot(row.row_id, row.voter, row.choice, tuple(VOTE_PLACES.decode(row.places)))
        for row in connection.execute(query)
    ]


def result(context: Context, case: Case) -> VotesSummary:
    """`votes.summary` of what people said so far, with `evaluation`, `judge` where another model
    was asked, and `said_agreement`, both in a sentence.
    """
    with reading(context.database) as connection:
        found = ballots_of(connection, case.id)
    opinion = stored_opinion(context, case.samples_path, votes.words(case.samples, found))
    summary = votes.summary(case.samples, found, case.names)
    summary["evaluation"] = case.id
    if opinion and "votes" in opinion:
        summary["judge"] = opinion["votes"]
    summary["said_agreement"] = votes.said_agreement(summary)
    return summary


def people_say(context: Context, case: Case) -> dict[str, str]:
    """`votes.words` of what people said so far."""
    with reading(context.database) as connection:
        return votes.words(case.samples, ballots_of(connection, case.id))


def vote(context: Context, case: Case, voter: str, row_id: str, said: str, *, now: int) -> str:
    """Record what a person said of a row; what they said of it before is replaced.

    `said`: the number of a place from 1, `tie` or `none`. Returns the choice.

    Raises NotFoundError for a row that cannot be voted on, InputError for a word that means nothing
    on it.
    """
    shown = votes.places(
        case.sample(row_id), voter=voter, evaluation=case.id, secret=context.secret
    )
    meanings = {**{str(number): role for number, role in enumerate(shown, 1)}, TIE: TIE, NONE: NONE}
    if said not in meanings:
        raise InputError(
            f"The vote is {said[:20]!r}; expected a number from 1 to {len(shown)}, '{TIE}' or"
            f" '{NONE}'."
        )
    mine = {"evaluation_id": case.id, "row_id": row_id, "voter": voter}
    with writing(context.database) as connection:
        _hold(connection, case)
        _remove(connection, case, voter, row_id)
        connection.execute(
            insert(answer_votes).values(
                **mine,
                choice=meanings[said],
                places=VOTE_PLACES.encode(list(shown)),
                created_at=now,
            )
        )
        _recount(connection, case)
    return meanings[said]


def undo(context: Context, case: Case, voter: str, row_id: str) -> None:
    """Take one's own vote back. Raises NotFoundError where there is none."""
    with writing(context.database) as connection:
        _hold(connection, case)
        if not _remove(connection, case, voter, row_id):
            raise NotFoundError("You have no vote on this row that could be taken back.")
        _recount(connection, case)


def _hold(connection: Connection, case: Case) -> None:
    """One vote on an evaluation after the other, so that each count holds all votes before it."""
    connection.execute(
        select(evaluations.c.id).where(evaluations.c.id == case.id).with_for_update()
    )


def _remove(connection: Connection, case: Case, voter: str, row_id: str) -> int:
    mine = (
        answer_votes.c.evaluation_id == case.id,
        answer_votes.c.voter == voter,
        answer_votes.c.row_id == row_id,
    )
    return connection.execute(delete(answer_votes).where(*mine)).rowcount


def _recount(connection: Connection, case: Case) -> None:
    """What the votes come to, where others can read it without the answers: on every evaluation
    that has these answers.
    """
    found = ballots_of(connection, case.id)
    said = votes.counted(case.samples, found, case.names) if found else None
    people: PeopleSay | None = (
        {"verdict": said["verdict"], "sentence": said["sentence"], "voted": said["voted"]}
        if said
        else None
    )
    same = (
        evaluations.c.samples_path == case.samples_path,
        evaluations.c.adapter_digest == case.adapter_digest,
    )
    connection.execute(
        update(evaluations)
        .where(*same)
        .values(people=EVALUATION_PEOPLE.encode(EVALUATION_PEOPLE.decode(people)))
    )
