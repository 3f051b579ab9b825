"""What goes into a dataset version, and why.

Pure: seed rows and reviewed examples in, split rows and reasons out.

Rules, in this order:

0. No row holds a control token of the base model, whatever its split: training would read it as a
  real one.
1. Seed rows keep their split. Rows of an erased user are gone.
2. Of reviewed answers to the same question (same instructions, same documents) the newest stands;
  it also replaces a
   seed row with that question, and takes its place in the split. Rows that teach what corrections
   have since replaced
   are left out, whatever their split (`feedback.contradictions`).
3. At most `per_user` reviewed rows of one end user and `per_group` of nearly the same question.
4. A reviewed row that is nearly a test row goes to the test set; otherwise the hash of its question
  decides, and what
   was decided once stays decided in later versions.
5. No training row is the same as, or nearly the same as, a test row: such rows are left out and
  listed.
6. Reviewed training rows weigh more than seed rows while they are few.

What rules 3 and 5 leave out stands all the same: it goes into no split, and every candidate is
judged by it.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from feedback.acceptance import row_control_token
from feedback.contradictions import Reviewed, judge, outdated_claims
from feedback.conversations import is_call, row_answer, row_frame, row_question
from feedback.similar import groups, normalise, question_key
from whet.control_tokens import ControlTokens
from whet.json_types import Json, JsonObject
from whet.store import digest_json

SPLITS = ("train", "validation", "test")
# Of reviewed rows: the regression suite grows with every correction, and most still teach
TEST_SHARE = 0.15
MIN_FOR_TEST = 20  # reviewed rows from which some must be held out, whatever the hashes say
_MIN_TEST_SHARE = 0.05  # what "some" is
PER_GROUP = 3  # reviewed rows of nearly the same question
USER_SHARE = 0.10  # of the reviewed rows may come from one end user …
PER_USER_AT_LEAST = 10  # … or this many while there are few
# Above this a single wrong correction would speak louder than four right seed rows
MAX_WEIGHT = 4.0
_NO_CONTROL_TOKENS = ControlTokens(())
# Equal answers of this length to an equal question are a copy, whatever surrounds them
_LONG_ANSWER_WORDS = 6


@dataclass(frozen=True, slots=True)
class Example:
    """A standing reviewed example."""

    id: str
    row: Mapping[str, Any]
    end_user: str | None
    created_at: int
    rejected: str | None = None  # what the model had said, where a person wrote another answer


@dataclass(slots=True)
class Assembled:
    rows: dict[str, list[dict[str, Any]]]
    example_ids: list[str]  # of the reviewed rows in it
    # Question key of every reviewed row so far → its split, for later versions
    assigned: dict[str, str]
    # {"row", "split", "by", "conflict"}
    superseded: list[dict[str, Any]] = field(default_factory=list)
    # {"id", "why", "control_token"?, "outdated"?: digest of the row}
    left_out: list[dict[str, str]] = field(default_factory=list)
    left_out_by_reason: Counter[str] = field(default_factory=Counter)
    # Reviewed rows that stand and are in no split: not learned, but not to be broken either
    regression: list[dict[str, Any]] = field(default_factory=list)
    weight: float = 1.0

    @property
    def control_token_rows(self) -> int:
        """How many rows were left out because they hold a control token."""
        return sum("control_token" in entry for entry in self.left_out)


@dataclass(slots=True)
class _Row:
    row: dict[str, Any]
    question: str
    frame: str
    key: str  # the question within its frame
    split: str = ""
    group: int = -1

    @property
    def reference(self) -> str:
        return str(self.row.get("id") or f"row {self.key}")


def _prepare(row: Mapping[str, Json], split: str = "") -> _Row:
    question, frame = row_question(row), normalise(row_frame(row))
    return _Row(dict(row), question, frame, question_key(f"{frame}\n{question}"), split)


def assemble(
    seed: Mapping[str, Sequence[Mapping[str, Json]]],
    examples: Sequence[Example],
    assigned: Mapping[str, str],
    control: ControlTokens = _NO_CONTROL_TOKENS,
) -> Assembled:
    """The rows of one version.

    `assigned` comes from the version before; the order of `examples` does not matter. `control`
    finds the control tokens of the base model that will be trained.
    """
    result = Assembled({name: [] for name in SPLITS}, [], dict(assigned))
    seeds = [_prepare(row, split) for split in SPLITS for row in seed.get(split, ())]
    seeds = [
        row for row in seeds if not _holds_control_token(row.row, row.reference, control, result)
    ]
    examples = [
        example
        for example in sorted(examples, key=lambda example: (example.created_at, example.id))
        if not _holds_control_token(example.row, example.id, control, result)
    ]
    reviewed = _newest_per_question(_capped_per_user(examples, result), result)
    seeds = _superseded(seeds, reviewed, result)
    seeds, reviewed = _without_outdated(seeds, reviewed, examples, result)
    _group(seeds, reviewed)
    reviewed = _capped_per_group(reviewed, result)
    _split(seeds, reviewed, result)
    kept = _without_leaks([*seeds, *reviewed], result)
    _weigh(kept, result)
    for row in kept:
        result.rows[row.split].append(row.row)
    result.example_ids = [row.row["id"] for row in kept if _is_review(row)]
    result.regression = _standing_elsewhere(seeds, examples, kept, result)
    return result


def _holds_control_token(
    row: Mapping[str, Json], reference: str, control: ControlTokens, result: Assembled
) -> bool:
    """Tell whether a row holds a control token, and list it as left out if so."""
    token = row_control_token(control, row)
    if token is not None:
        why = f"its text holds the control token {token}"
        result.left_out.append({"id": reference, "why": why, "control_token": token})
        result.left_out_by_reason["its text holds a control token"] += 1
    return token is not None


def _standing_elsewhere(
    seeds: Sequence[_Row], examples: Sequence[Example], kept: Sequence[_Row], result: Assembled
) -> list[JsonObject]:
    """Reviewed rows that a cap or a test row kept out, newest per question; what people have
    replaced since is not among them.
    """
    aside = Assembled({}, [], {})
    newest = _newest_per_question(
        sorted(examples, key=lambda example: (example.created_at, example.id), reverse=True), aside
    )
    _, standing = _without_outdated(seeds, newest, examples, aside)
    held = {row.key for row in kept if _is_review(row)}
    return [row.row for row in standing if row.key not in held]


def _is_review(row: _Row) -> bool:
    return row.row.get("origin") == "review"


def _leave_out(result: Assembled, row_id: str, reason: str, which: str = "") -> None:
    """List a row as left out; `reason` is counted, and `which` names what is special here."""
    result.left_out.append({"id": row_id, "why": f"{reason}{which}"})
    result.left_out_by_reason[reason] += 1


def _capped_per_user(examples: Sequence[Example], result: Assembled) -> list[Example]:
    limit = max(PER_USER_AT_LEAST, int(USER_SHARE * len(examples)))
    count: Counter[str] = Counter()
    kept = []
    for example in sorted(examples, key=lambda e: (e.created_at, e.id), reverse=True):
        if example.end_user:
            count[example.end_user] += 1
            if count[example.end_user] > limit:
                _leave_out(
                    result,
                    example.id,
                    f"more than {limit} reviewed rows of one end user; the newest were kept",
                )
                continue
        kept.append(example)
    return kept


def _newest_per_question(newest_first: Sequence[Example], result: Assembled) -> list[_Row]:
    by_key: dict[str, _Row] = {}
    for example in newest_first:
        row = _prepare({**example.row, "id": example.id, "origin": "review"})
        if (newer := by_key.get(row.key)) is not None:
            _leave_out(
                result, example.id, "a newer reviewed answer to the same question stands",
                f": {newer.reference}",
            )  # fmt: skip
        else:
            by_key[row.key] = row
    return list(by_key.values())[::-1]  # oldest first from here on: new rows come last in the files


def _superseded(seeds: Sequence[_Row], reviewed: Sequence[_Row], result: Assembled) -> list[_Row]:
    by_key = {row.key: row for row in reviewed}
    kept = []
    for row in seeds:
        newer = by_key.get(row.key)
        if newer is None:
            kept.append(row)
            continue
        newer.split = "test" if "test" in (newer.split, row.split) else newer.split or row.split
        conflict = normalise(row_answer(row.row)) != normalise(row_answer(newer.row))
        result.superseded.append(
            {"row": row.reference, "split": row.split, "by": newer.reference, "conflict": conflict}
        )
    return kept


def _without_outdated(
    seeds: Sequence[_Row], reviewed: Sequence[_Row], examples: Sequence[Example], result: Assembled
) -> tuple[list[_Row], list[_Row]]:
    """Rows left after those that make a claim which people have replaced since."""
    # Claims are made in words: a call of a tool makes none, and a changed argument replaces none.
    said = [
        Reviewed(e.id, row_question(e.row), e.rejected, row_answer(e.row), e.created_at)
        for e in examples
        if not is_call(e.row)
    ]
    claims = outdated_claims(
        [(row.question, row_answer(row.row)) for row in seeds if not is_call(row.row)], said
    )
    reviewed_at = {example.id: example.created_at for example in examples}

    def stands(row: _Row) -> bool:
        later = [claim for claim in claims if reviewed_at.get(row.reference, -1) < claim.since]
        outdated = None if is_call(row.row) else judge(row.question, row_answer(row.row), later)
        if outdated:
            result.left_out.append(
                {"id": row.reference, "why": outdated.why, "outdated": digest_json(row.row)}
            )
            result.left_out_by_reason["it says what corrections replaced"] += 1
        return outdated is None

    return [row for row in seeds if stands(row)], [row for row in reviewed if stands(row)]


def _group(seeds: Sequence[_Row], reviewed: Sequence[_Row]) -> None:
    everything = [*seeds, *reviewed]
    found = groups([row.question for row in everything], [row.frame for row in everything])
    for row, group in zip(everything, found, strict=True):
        row.group = group


def _capped_per_group(reviewed: Sequence[_Row], result: Assembled) -> list[_Row]:
    count: Counter[int] = Counter()
    kept = []
    for row in reversed(reviewed):
        count[row.group] += 1
        if count[row.group] > PER_GROUP:
            _leave_out(
                result,
                row.reference,
                f"more than {PER_GROUP} reviewed rows of nearly the same question; the newest were"
                " kept",
            )
        else:
            kept.append(row)
    return kept[::-1]


def _split(seeds: Sequence[_Row], reviewed: Sequence[_Row], result: Assembled) -> None:
    held_out = {row.group for row in seeds if row.split == "test"} | {
        row.group
        for row in reviewed
        if row.split == "test" or result.assigned.get(row.key) == "test"
    }
    fresh: dict[int, list[_Row]] = defaultdict(list)
    for row in reviewed:
        if row.key in result.assigned:
            row.split = result.assigned[row.key]
        elif row.group in held_out:
            row.split = "test"
        elif not row.split:
            fresh[row.group].append(row)
    position = {group: min(_position(row.key) for row in rows) for group, rows in fresh.items()}
    for group, rows in fresh.items():
        for row in rows:
            row.split = "test" if position[group] < TEST_SHARE else "train"
    missing = (
        max(1, int(_MIN_TEST_SHARE * len(reviewed))) - sum(row.split == "test" for row in reviewed)
        if len(reviewed) >= MIN_FOR_TEST
        else 0
    )
    for group in sorted(
        (g for g, rows in fresh.items() if rows[0].split == "train"), key=position.__getitem__
    ):
        if missing <= 0:
            break
        missing -= len(fresh[group])
        for row in fresh[group]:
            row.split = "test"
    result.assigned.update({row.key: row.split for row in reviewed})


def _position(key: str) -> float:
    """Where a question falls between 0 and 1, the same for ever."""
    return int.from_bytes(hashlib.sha256(f"split:{key}".encode()).digest()[:6], "big") / 2**48


def _without_leaks(rows: Sequence[_Row], result: Assembled) -> list[_Row]:
    """Rows that are not in training, and training rows that no test row resembles."""
    test = [row for row in rows if row.split == "test"]
    by_group = {row.group: row.reference for row in test}
    by_copy = {copy: row.reference for row in test if (copy := _copy_key(row))}
    kept = []
    for row in rows:
        twin = (
            (by_group.get(row.group) or by_copy.get(_copy_key(row) or ""))
            if row.split == "train"
            else None
        )
        if twin:
            _leave_out(
                result, row.reference, "nearly the same question as the test row", f" {twin}"
            )
        else:
            kept.append(row)
    return kept


def _copy_key(row: _Row) -> str | None:
    answer = normalise(row_answer(row.row))
    return (
        f"{question_key(row.question)} {question_key(answer)}"
        if len(answer.split()) >= _LONG_ANSWER_WORDS
        else None
    )


def _weigh(rows: Sequence[_Row], result: Assembled) -> None:
    """Reviewed rows together weigh as much as the seed rows they are replayed with: what is new
    must be learned, what is old must not be lost. In steps of 0.5, between 1 and MAX_WEIGHT.
    """
    train = [row for row in rows if row.split == "train"]
    new = [row for row in train if _is_review(row)]
    if not new:
        return
    result.weight = min(MAX_WEIGHT, max(1.0, round(2 * (len(train) - len(new)) / len(new)) / 2))
    if result.weight != 1.0:
        for row in new:
            row.row["weight"] = result.weight
