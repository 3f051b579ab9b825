"""Choose what is held out together, and which of it goes into which part. Pure functions.

`pattern`: whole patterns of questions (`training/data/patterns.py`), so that the test asks in
wordings that training has not. `question`: single questions. `user`: everything of a user. `time`:
the newest.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from training.data.datasets import Shares
from training.data.leaks import MIN_TEST_ROWS
from training.data.patterns import Patterns
from training.data.rows import Row
from training.data.shapes import TEXT
from whet.errors import InputError
from whet.store import digest_bytes

AUTO, PATTERN, QUESTION, USER, TIME = "auto", "pattern", "question", "user", "time"
CHOICES = (AUTO, PATTERN, QUESTION, USER, TIME)

_SPREAD = 16**12  # a position between 0 and 1 comes from 12 hexadecimal characters of a digest
# Questions from which the test asks MIN_TEST_ROWS: a third may be held out, no more.
_SMALLEST_SPLIT = 3 * MIN_TEST_ROWS
# Of the patterns of a task; with fewer, each is too large a part of what there is to learn.
_FEWEST_PATTERNS = 4
# Of the rows of a task: a larger pattern is most of what it teaches and is not held out whole.
_LARGEST_PATTERN = 0.25
# A pattern is taken although it is larger than what the part still lacks, up to so many times that.
_OVER = 1.5
# Different questions that the test asks where a larger part of the rows provides them: with 30 the
# score of a version that answers 85 % is known to 11 points, with 15 to 16 (one standard error of
# questions that go together in threes).
_ENOUGH_QUESTIONS, _MOST_FOR_QUESTIONS = 30, 0.15
# Patterns that the test should ask in: of fewer, one more or less decides the score.
_PATTERNS_WANTED = 6
# Of the rows with a user; where most questions are their asker's own, users are what differs.
_OWN_QUESTIONS = 0.5


@dataclass(slots=True)
class Unit:
    """Keys of rows that go into one part together."""

    keys: list[str]
    members: list[Row]
    position: float  # 0 to 1, by hash or by time; the lowest are held out
    part: str = ""  # empty: not chosen yet
    is_settled: bool = False  # by an earlier split

    @property
    def rows(self) -> int:
        return len(self.members)

    @property
    def answers(self) -> set[str]:
        return {row.answer for row in self.members}

    @property
    def task(self) -> str:
        """The task that most of its rows have; plain texts are a task of their own, so that a
        share of them is held out whatever stands beside them."""
        tasks = [f"{row.task} {TEXT}" if row.is_text else row.task for row in self.members]
        return max(sorted(set(tasks)), key=tasks.count)


def require_choice(rows: Sequence[Row], wanted: str) -> None:
    """Raises InputError for an unknown choice, and for `user` where no row has one."""
    if wanted not in CHOICES:
        raise InputError(
            f"--hold-out is {wanted!r}; expected one of {', '.join(CHOICES)}.",
            hint="auto holds out whole patterns of questions where customers repeat each other.",
        )
    if wanted == USER and all(row.user is None for row in rows):
        raise InputError(
            "--hold-out user: no row has a field `user`.",
            hint="Add it, or hold out by pattern or question.",
        )
    if wanted == TIME:
        raise InputError(
            "--hold-out time needs the field that holds the time.",
            hint="Name it with --by-time FIELD.",
        )


def choose_hold_out(rows: Sequence[Row], wanted: str) -> tuple[str, str]:
    """Decide what is held out together; returns it with the reason where `wanted` is `auto`.

    Raises what `require_choice` raises.
    """
    require_choice(rows, wanted)
    if wanted != AUTO:
        return wanted, ""
    users = [row for row in rows if row.user is not None]
    if not users:
        return PATTERN, ""
    patterns = Patterns(users).of_rows
    askers: dict[int, set[str]] = defaultdict(set)
    for row, pattern in zip(users, patterns, strict=True):
        askers[pattern].add(str(row.user))
    if len(askers) < _FEWEST_PATTERNS:
        return USER, "there are too few patterns to hold one out, so whole users are held out"
    own = sum(len(askers[pattern]) == 1 for pattern in patterns)
    if own >= _OWN_QUESTIONS * len(users):
        return USER, "most questions are asked by one user each, so whole users are held out"
    return PATTERN, (
        "users ask the same questions, so whole patterns of questions are held out and a user may "
        "be in both parts (--hold-out user keeps users apart)"
    )


def units_of(
    keys: Mapping[str, list[Row]], hold_out: str, by_time: Mapping[str, float] | None = None
) -> list[Unit]:
    """Group keys into units. `by_time` are positions that replace the hashes.

    Patterns that a task has few of, or that make up most of it, are held out by the question.
    """
    single = {
        key: Unit([key], rows, by_time[key] if by_time else _position(key))
        for key, rows in keys.items()
    }
    if hold_out != PATTERN:
        return list(single.values())
    texts = [unit for unit in single.values() if unit.members[0].is_text]
    asked = [unit for unit in single.values() if not unit.members[0].is_text]
    patterns = Patterns([unit.members[0] for unit in asked]).of_rows
    by_task: dict[str, dict[int, list[Unit]]] = defaultdict(lambda: defaultdict(list))
    for unit, pattern in zip(asked, patterns, strict=True):
        by_task[unit.task][pattern].append(unit)
    found = texts  # they ask nothing
    for by_pattern in by_task.values():
        rows = sum(unit.rows for some in by_pattern.values() for unit in some)
        for some in by_pattern.values():
            is_large = sum(unit.rows for unit in some) > _LARGEST_PATTERN * rows
            found += some if is_large or len(by_pattern) < _FEWEST_PATTERNS else [_joined(some)]
    return found


def _joined(units: Sequence[Unit]) -> Unit:
    return Unit(
        [key for unit in units for key in unit.keys],
        [row for unit in units for row in unit.members],
        min(unit.position for unit in units),
    )


def choose_parts(units: Sequence[Unit], shares: Shares, settled: Mapping[str, str]) -> list[Unit]:
    """Set the part of each unit; returns those that a part borrowed.

    A unit with a key that an earlier split settled goes where most of its settled rows are. The
    others are taken from the lowest position on until the share is held out, those first whose
    answers are taught by other units too: a test asks what could be learned.
    """
    for unit in units:
        known = [settled[key] for key in unit.keys if key in settled]
        if known:
            unit.part, unit.is_settled = max(sorted(set(known)), key=known.count), True
    teachers = Counter(answer for unit in units if not unit.part for answer in unit.answers)
    borrowed: list[Unit] = []
    by_task: dict[str, list[Unit]] = defaultdict(list)
    for unit in units:
        by_task[unit.task].append(unit)
    for part, share in (("test", shares.test), ("validation", shares.validation)):
        if not share:
            continue
        for members in by_task.values():
            borrowed += _fill(members, part, share, shares, teachers)
        if part == "test":
            borrowed += _borrow_up_to_minimum(units)
    if units and all(unit.part in ("test", "validation") for unit in units):
        max(units, key=lambda unit: unit.position).part = "train"  # something has to be learned
    return borrowed


def _fill(
    units: Sequence[Unit], part: str, share: float, shares: Shares, teachers: Counter[str]
) -> list[Unit]:
    """Choose what of one task goes into a held-out part; returns what the part borrowed."""
    below = shares.test if part == "test" else shares.test + shares.validation
    fresh = [unit for unit in units if not unit.part]
    if any(len(unit.keys) > 1 for unit in units):
        wanted = share * sum(unit.rows for unit in units)
        if part == "test":
            wanted = max(wanted, _rows_for_questions(units))
        _take_patterns(fresh, part, wanted - _held(units, part), teachers)
    else:
        for unit in fresh:
            if unit.position < below:
                unit.part = part
    left = [unit for unit in fresh if not unit.part]
    if len(units) < 3 or len(left) < 2 or _held(units, part):
        return []
    nearest = min(left, key=lambda unit: (abs(unit.position - below + share), unit.keys))
    nearest.part = part
    return [nearest]


def _rows_for_questions(units: Sequence[Unit]) -> float:
    """Rows to hold out where customers repeat few questions."""
    total = sum(unit.rows for unit in units)
    questions = sum(len(unit.keys) for unit in units)
    return total * min(_MOST_FOR_QUESTIONS, _ENOUGH_QUESTIONS / questions)


def _take_patterns(fresh: Sequence[Unit], part: str, wanted: float, teachers: Counter[str]) -> None:
    """Hold out units until so many rows are, those first whose answers others teach too.

    A test asks what could be learned: `teachers` counts the units outside the held-out parts that
    have each answer, and shrinks by what is taken here. Of these, units come first whose answers
    have lost no teacher to the test yet: two wordings of one matter leave it worse taught than
    others are. Then small ones: many patterns of a few rows say more than few of many.
    """
    taken: Counter[str] = Counter()
    small = wanted / _PATTERNS_WANTED

    def rank(unit: Unit) -> tuple[float, float, bool]:
        answers = unit.answers
        lonely = sum(teachers[answer] < 2 for answer in answers) / len(answers)
        shared = sum(taken[answer] for answer in answers) / len(answers)
        return round(lonely, 1), round(shared, 1), unit.rows > small

    waiting = [(rank(unit), unit.position, number) for number, unit in enumerate(fresh)]
    heapify(waiting)
    while waiting and wanted > 0:
        was, position, number = heappop(waiting)
        unit = fresh[number]
        if (now := rank(unit)) > was:  # others that have its answers have been taken meanwhile
            heappush(waiting, (now, position, number))
        elif unit.rows <= _OVER * wanted:
            unit.part = part
            wanted -= unit.rows
            teachers.subtract(unit.answers)
            taken.update(unit.answers)


def _borrow_up_to_minimum(units: Sequence[Unit]) -> list[Unit]:
    """From 30 different questions on the test asks at least 10, which the gate needs."""
    if sum(len(unit.keys) for unit in units) < _SMALLEST_SPLIT:
        return []
    borrowed: list[Unit] = []
    lacking = MIN_TEST_ROWS - sum(len(unit.keys) for unit in units if unit.part == "test")
    left = [unit for unit in units if not unit.part]
    for unit in sorted(left, key=lambda unit: (len(unit.keys) > MIN_TEST_ROWS, unit.position)):
        if lacking <= 0 or len(borrowed) >= len(left) - 1:
            break
        unit.part = "test"
        lacking -= len(unit.keys)
        borrowed.append(unit)
    return borrowed


def _held(units: Sequence[Unit], part: str) -> int:
    return sum(unit.rows for unit in units if unit.part == part)


def _position(key: str) -> float:
    return int(digest_bytes(key.encode())[:12], 16) / _SPREAD
