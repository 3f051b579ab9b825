"""Word training questions otherwise in each pass, so that the answer is not tied to a wording.

A small set asks for each fact in few wordings, and a model learns them together: "Where is the
Aurora?" is answered, "Where is the Comet?" was never asked and is not. Three changes, all of the
last message of a user alone, the answer as it is:

- **transfer**: the question is asked as another row asks the same of something else. Rows ask the
  same where their answers have one frame (equal words around what the question names) and their
  wordings are joined by a thing that was asked in both and answered alike. A frame in which one
  thing has two answers is left alone: there, something else decides.
- **dropped words**: some words are left out, so that the others have to be enough (random deletion
  of
  EDA; J. Wei, K. Zou, "EDA: Easy Data Augmentation Techniques for Boosting Performance on Text
  Classification Tasks", 2019). What the question names, figures and negations stay, and so do all
  words of a question whose answer no other question has: there, each word may decide it.
- **small talk**: a greeting before and a closing after it, other case and punctuation.

Rows whose answers repeat the question's own words (echoes, corrections), long texts, and anything
with code or tools stay as they are.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from training.data.languages import UNKNOWN, mix
from training.data.message import with_content
from training.data.patterns import Patterns
from training.data.rows import Row
from training.data.similar import words
from whet.groups import Groups

# Chosen on generated shops (benchmarks/training/GATE.md).
_TRANSFERRED = 0.7  # share of the variants that ask in another row's wording, where there is one
_SMALL_TALK = 0.6  # chance of a greeting, and of a closing
_SHORTENED = 0.5  # share of the variants that words are dropped from …
_MOST_DROPPED = 0.6  # … of each word with a chance between 0 and this, drawn for each variant
_OTHER_CASE = 0.15  # chance of small letters, and of no punctuation
# A longer text is more than a question, and its wording may decide the answer.
_MOST_WORDS = 40
# Share of the question's words, things apart, that an answer repeats: above it, it is an echo.
_ECHO = 0.6
# Of the answers: words of more of them are no name of a thing, as those of a signature.
_COMMON = 0.5
# Words of fewer answers are part of one answer, not of a frame.
_FRAME_ANSWERS, _FRAME_SHARE = 3, 0.02
# Of the languages that spell words apart; a question turned into its opposite has another answer.
_NEGATIONS = frozenset(
    re.findall(
        r"\w+",
        """not no never none nothing without cannot nicht nie kein keine ohne ne pas jamais sans non
        mai senza nunca sin geen niet nooit zonder não sem""",
    )
)
_CODE = re.compile(r"[{}<>`|=\\]|\n.*\n")
_OPENINGS = (
    "Hello,", "Hi,", "Hey,", "Good morning,", "Good day,", "Good afternoon,", "Good evening,",
    "Dear support,", "Dear Sir or Madam,", "Excuse me,", "Sorry to bother you,", "Quick question:",
    "One question:", "Help!", "I have a question.", "Hi all,", "Greetings.", "I hope you are well.",
    "New customer here.", "A friend asks:", "It is me again.", "Could you help me?", "So,", "Well,",
    "Okay,", "By the way,", "Urgent:", "I am in a hurry.", "Listen,", "Before I forget:",
)  # fmt: skip
_CLOSINGS = (
    "Thanks.", "Thank you.", "Thanks a lot!", "Thanks for your help.", "Thank you in advance.",
    "Please help.", "Please answer soon.", "Regards", "Best regards", "Kind regards, Sam",
    "Can you help?", "I would be grateful.", "Bye", "Have a nice day.", "That is all.", "Any idea?",
    "Thank you so much", "Cheers", "I look forward to your answer.", "See you.", "Please let me know.",
    "ty", "asap please", "I cannot find it anywhere.", "My colleague asked me too.",
)  # fmt: skip


@dataclass(frozen=True)
class Variants:
    """Rows by pass: the first pass has them as they are, each later one in other words."""

    passes: list[list[Row]]
    reworded: int  # rows that are worded otherwise in some pass
    transferable: int  # of these, rows that other rows' wordings fit


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question cut at the thing that it names."""

    before: str
    thing: str
    after: str


def question_variants(rows: Sequence[Row], passes: int, seed: int) -> Variants:
    """Make `passes` lists of the rows; what changes follows from the seed and the rows alone."""
    usable = [number for number, row in enumerate(rows) if _can_be_reworded(row)]
    patterns = Patterns([rows[number] for number in usable])
    donors = _donors(rows, dict(zip(usable, patterns.of_rows, strict=True)))
    shortened = _with_shared_answers(rows, usable)
    kept_words = patterns.slots | _NEGATIONS
    languages, _ = mix([_question(rows[number]) for number in usable])
    known = {name: count for name, count in languages.items() if name != UNKNOWN}
    # Short questions are unknown
    is_english = max(known, key=known.__getitem__, default="") == "en"
    found = [list(rows)]
    for number_of_pass in range(1, passes):
        random_ = random.Random(f"{seed}:{number_of_pass}")
        changed = list(rows)
        for number in usable:
            question = _question(rows[number])
            if donors.get(number) and random_.random() < _TRANSFERRED:
                question = random_.choice(donors[number])
            if number in shortened and random_.random() < _SHORTENED:
                question = _with_words_dropped(question, kept_words, random_)
            changed[number] = _asking(rows[number], _chatty(question, random_, is_english))
        found.append(changed)
    return Variants(found, len(usable), sum(bool(donors.get(number)) for number in usable))


def _can_be_reworded(row: Row) -> bool:
    position = _position(row)
    if position is None or row.mode == "all" or any(m.get("tool_calls") for m in row.messages):
        return False
    question = str(row.messages[position]["content"])
    asked = set(words(question))
    if len(asked) > _MOST_WORDS or _CODE.search(question):
        return False
    named = {word for word in asked if any(letter.isdigit() for letter in word)}
    own = asked - named
    return len(own & set(words(row.answer))) <= _ECHO * max(1, len(own))


def _position(row: Row) -> int | None:
    """Position of the last message of a user with a text."""
    found = [
        number
        for number, message in enumerate(row.messages)
        if message["role"] == "user" and isinstance(message["content"], str)
    ]
    return found[-1] if found else None


def _question(row: Row) -> str:
    position = _position(row)
    assert position is not None  # rows without one are not reworded
    return str(row.messages[position]["content"])


def _asking(row: Row, question: str) -> Row:
    position = _position(row)
    messages = tuple(
        with_content(message, question) if number == position else message
        for number, message in enumerate(row.messages)
    )
    return replace(row, messages=messages)


def _with_shared_answers(rows: Sequence[Row], usable: Sequence[int]) -> set[int]:
    """Rows whose answer stands to another question too."""
    questions: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        questions[row.answer].add(row.prompt_digest)
    return {number for number in usable if len(questions[rows[number].answer]) > 1}


def _with_words_dropped(question: str, kept: frozenset[str], random_: random.Random) -> str:
    chance = random_.random() * _MOST_DROPPED
    left = [
        token
        for token in question.split(" ")
        if random_.random() > chance
        or not set(words(token)).isdisjoint(kept)
        or "'" in token
        or any(letter.isdigit() for letter in token)
    ]
    return " ".join(left) or question


def _chatty(question: str, random_: random.Random, is_english: bool) -> str:
    if is_english and random_.random() < _SMALL_TALK:
        question = f"{random_.choice(_OPENINGS)} {question}"
    if is_english and random_.random() < _SMALL_TALK:
        question = f"{question} {random_.choice(_CLOSINGS)}"
    if random_.random() < _OTHER_CASE:
        question = question.lower()
    if random_.random() < _OTHER_CASE:
        question = question.replace("?", "").replace(",", "").replace("!", "")
    return question


def _donors(rows: Sequence[Row], patterns: dict[int, int]) -> dict[int, list[str]]:
    """For each row the questions that other rows' wordings make of it.

    `patterns` are those of the rows that can be reworded, by position.
    """
    asked = _cut(rows, list(patterns))
    frames = _frames(rows, asked)
    by_frame: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, frame in frames.items():
        by_frame[frame].append(number)
    found: dict[int, list[str]] = {}
    for members in by_frame.values():
        for joined in _joined_wordings(rows, members, asked, patterns):
            wordings = sorted({(asked[n].before, asked[n].after) for n in joined})
            for number in joined:
                own = asked[number]
                found[number] = [
                    f"{before}{own.thing}{after}"
                    for before, after in wordings
                    if (before, after) != (own.before, own.after)
                ]
    return found


def _cut(rows: Sequence[Row], usable: Sequence[int]) -> dict[int, _Asked]:
    """Cut each question at the longest run of words that its answer repeats and others do not.

    Questions with other figures are left out: those belong to one question alone.
    """
    answers = {row.answer for row in rows}
    common = Counter(word for answer in answers for word in set(words(answer)))
    limit = _COMMON * len(answers)
    found: dict[int, _Asked] = {}
    for number in usable:
        question = _question(rows[number])
        answer = f" {' '.join(words(rows[number].answer))} "
        best: tuple[int, int] = (0, 0)
        starts = [match.span() for match in re.finditer(r"[^\W_]+", question)]
        for first in range(len(starts)):
            for last in range(first, len(starts)):
                text = " ".join(words(question[starts[first][0] : starts[last][1]]))
                if f" {text} " not in answer:
                    break
                rare = any(common[word] < limit for word in text.split())
                if rare and starts[last][1] - starts[first][0] > best[1] - best[0]:
                    best = (starts[first][0], starts[last][1])
        begin, end = best
        around = question[:begin] + question[end:]
        if end and words(around) != [around] and not any(letter.isdigit() for letter in around):
            found[number] = _Asked(question[:begin], question[begin:end], question[end:])
    return found


def _frames(rows: Sequence[Row], asked: dict[int, _Asked]) -> dict[int, tuple[str, ...]]:
    """Each answer's words around the thing: figures as one, rare words left out."""
    answers = {row.answer for row in rows}
    counts = Counter(word for answer in answers for word in set(words(answer)))
    least = max(_FRAME_ANSWERS, _FRAME_SHARE * len(answers))
    found: dict[int, tuple[str, ...]] = {}
    for number, cut in asked.items():
        thing = " ".join(words(cut.thing))
        text = f" {' '.join(words(rows[number].answer))} ".replace(f" {thing} ", " \0 ")
        frame = [
            "#" if any(letter.isdigit() for letter in word) else word
            for word in text.split()
            if word == "\0" or counts[word] >= least or any(letter.isdigit() for letter in word)
        ]
        found[number] = tuple(frame)
    return found


def _joined_wordings(
    rows: Sequence[Row],
    members: Sequence[int],
    asked: dict[int, _Asked],
    patterns: dict[int, int],
) -> list[list[int]]:
    """Rows of one frame whose patterns ask the same, as things asked in both show."""
    answers: dict[str, set[str]] = defaultdict(set)
    asked_in: dict[str, set[int]] = defaultdict(set)
    for number in members:
        thing = " ".join(words(asked[number].thing))
        answers[thing].add(rows[number].answer)
        asked_in[thing].add(patterns[number])
    if len(answers) < 2 or any(len(some) > 1 for some in answers.values()):
        return []
    order = sorted({patterns[number] for number in members})
    groups = Groups(len(order))
    for some in asked_in.values():
        first, *others = sorted(some)
        for other in others:
            groups.join(order.index(first), order.index(other))
    by_group: dict[int, list[int]] = defaultdict(list)
    for number in members:
        by_group[groups.first(order.index(patterns[number]))].append(number)
    return [some for some in by_group.values() if len({patterns[n] for n in some}) > 1]
