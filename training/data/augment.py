"""More rows from the training rows: the question said in other words, the answer as it is.

Word changes are those of EDA (J. Wei, K. Zou, "EDA: Easy Data Augmentation Techniques for Boosting
Performance on Text Classification Tasks", 2019): random swap, deletion, insertion, and replacement
by synonyms. Paraphrase and back-translation ask a model behind an endpoint.

What the question is about never changes: a word that the answer or `checks` repeats, and anything
with a digit, stays where it is. Each new row is marked: `origin` synthetic, `parent` the row that
it was made from, `made_by` how.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from training.ask_together import asked_together
from training.data.leaks import Leak, find_leaks
from training.data.message import written
from training.data.rows import BadLine, Row, read_objects
from training.data.similar import text_key, words
from whet.errors import InputError
from whet.json_types import JsonObject
from whet.lines import split_lines

WORD_METHODS = ("swap", "delete", "insert", "synonym")
MODEL_METHODS = ("paraphrase", "back-translate")
# Of the words, and at least one: EDA's alpha, at which most of its gain was measured
_CHANGED = 0.1
_LONGEST_PARAPHRASE = 4  # times the question's length: more is an answer or a lecture
_TRIES = 5  # draws for a new wording before a row is given up: of short questions there are few

Rewrite = Callable[[str], str]


@dataclass
class Augmented:
    """New rows alone, and what became of the attempts."""

    rows: list[JsonObject] = field(default_factory=list)
    made: Counter[str] = field(default_factory=Counter)  # method -> rows
    skipped: Counter[str] = field(default_factory=Counter)  # why -> attempts
    # New rows that repeat a held-out row: not in `rows`
    leaks: list[Leak] = field(default_factory=list)
    refused: list[BadLine] = field(default_factory=list)

    def facts(self) -> dict[str, object]:
        """Return what the record of the step says of the attempts."""
        return {
            "made": dict(self.made),
            "skipped": dict(self.skipped),
            "leaks": [str(leak) for leak in self.leaks],
        }


def augment(
    rows: Sequence[Row],
    *,
    methods: Sequence[str],
    per_row: int,
    seed: int,
    held_out: Sequence[Row] = (),
    synonyms: Mapping[str, Sequence[str]] | None = None,
    rewrite: Mapping[str, Rewrite] | None = None,
    on_row: Callable[[], None] = lambda: None,
) -> Augmented:
    """`per_row` new rows for each real row, by the methods in turn.

    Word changes follow from the seed and the row alone.

    `rewrite` has a function for each method that asks a model, called for several questions at
    once; what it answers is checked. Errors it raises end the work.
    """
    asks = [
        (row, method)
        for row in rows
        if _why_not(row) is None
        for method in _in_turn(methods, per_row)
        if method in MODEL_METHODS
    ]
    with asked_together(
        lambda each: (rewrite or {})[each[1]](question_text(each[0])), asks
    ) as written:
        return _augmented(rows, methods, per_row, seed, held_out, synonyms or {}, written, on_row)


def _augmented(
    rows: Sequence[Row],
    methods: Sequence[str],
    per_row: int,
    seed: int,
    held_out: Sequence[Row],
    synonyms: Mapping[str, Sequence[str]],
    written: Iterator[str],
    on_row: Callable[[], None],
) -> Augmented:
    """`written`: what a model makes of the questions that it is asked about, in their order."""
    result = Augmented()
    seen = {text_key(question_text(row)) for row in [*rows, *held_out]}
    for row in rows:
        on_row()
        if (why_not := _why_not(row)) is not None:
            result.skipped[why_not] += 1
            continue
        rng = random.Random(f"{seed}:{row.digest}")
        for number, method in enumerate(_in_turn(methods, per_row)):
            question, why = _reworded(row, method, rng, synonyms, written, seen)
            if question is None:
                result.skipped[why] += 1
                continue
            seen.add(text_key(question))
            made = read_objects([(row.line, _row(row, question, method, number))], unit="row")
            result.refused += made.bad
            result.rows += [new.raw for new in made.rows]
            result.made[method] += len(made.rows)
    if held_out and result.rows:
        new_rows = read_objects(enumerate(result.rows, start=1), unit="row").rows
        result.leaks = find_leaks(new_rows, held_out)
        gone = {leak.row.line for leak in result.leaks}
        result.rows = [raw for number, raw in enumerate(result.rows, start=1) if number not in gone]
    return result


def _in_turn(methods: Sequence[str], count: int) -> list[str]:
    return [methods[number % len(methods)] for number in range(count)]


def _why_not(row: Row) -> str | None:
    """Why no row is made of this one; None where some are."""
    if row.origin == "synthetic":
        return "is synthetic itself"
    return "has no message of a user" if _asked(row) is None else None


def question_text(row: Row) -> str:
    """The last message of a user; empty where there is none."""
    asked = _asked(row)
    return "" if asked is None else str(row.messages[asked]["content"])


def _asked(row: Row) -> int | None:
    """Position of the last user message."""
    return max(
        (position for position, message in enumerate(row.messages) if message["role"] == "user"),
        default=None,
    )


def _reworded(
    row: Row,
    method: str,
    rng: random.Random,
    synonyms: Mapping[str, Sequence[str]],
    written: Iterator[str],
    seen: set[str],
) -> tuple[str | None, str]:
    """(the new question, why there is none)."""
    asked, kept = question_text(row), _kept_words(row)
    why = "no other wording was found"
    for _ in range(1 if method in MODEL_METHODS else _TRIES):
        made = (
            next(written)
            if method in MODEL_METHODS
            else _changed(asked, method, kept, rng, synonyms)
        )
        if made is None:
            return None, f"nothing to {method}"
        if len(made) > _LONGEST_PARAPHRASE * len(asked) + 40:
            why = f"the {method} was far longer than the question"
        elif not kept & set(words(asked)) <= set(words(made)):
            why = f"the {method} lost a word that the answer repeats"
        elif text_key(made) not in seen:
            return made, ""
    return None, why


def _kept_words(row: Row) -> set[str]:
    """Words that must stay: those of the answer and its checks, and all numbers."""
    answered = {word for text in (row.answer, *row.checks) for word in words(text)}
    return answered | {word for word in words(question_text(row)) if re.search(r"\d", word)}


def _changed(
    asked: str,
    method: str,
    kept: set[str],
    rng: random.Random,
    synonyms: Mapping[str, Sequence[str]],
) -> str | None:
    """The question with a tenth of its words changed; None where the method finds nothing to
    change.
    """
    tokens = asked.split(" ")
    free = [
        position
        for position, token in enumerate(tokens)
        if token.strip() and not (set(words(token)) & kept)
    ]
    times = max(1, round(_CHANGED * len(tokens)))
    if method == "swap":
        if len(free) < 2:
            return None
        for _ in range(times):
            one, other = rng.sample(free, 2)
            tokens[one], tokens[other] = tokens[other], tokens[one]
    elif method == "delete":
        if len(free) < 2 or len(tokens) < 4:
            return None
        gone = set(rng.sample(free, min(times, len(free) - 1)))
        tokens = [token for position, token in enumerate(tokens) if position not in gone]
    else:
        known = [position for position in free if synonyms.get(text_key(tokens[position]))]
        if not known:
            return None
        for position in rng.sample(known, min(times, len(known))):
            chosen = rng.choice(list(synonyms[text_key(tokens[position])]))
            if method == "synonym":
                tokens[position] = _dressed(tokens[position], chosen)
            else:
                tokens[rng.choice(free)] += f" {chosen}"
    return " ".join(tokens)


def _dressed(token: str, word: str) -> str:
    """The word with the token's capital letter and punctuation."""
    body = re.search(r"\w(.*\w)?", token)
    if body is None:
        return word
    return (
        token[: body.start()]
        + (word[:1].upper() + word[1:] if body.group()[0].isupper() else word)
        + token[body.end() :]
    )


def _row(row: Row, question: str, method: str, number: int) -> JsonObject:
    messages = row.weighted_messages()
    asked = _asked(row)
    assert asked is not None  # rows without a question are left out before
    messages[asked]["content"] = question
    raw = {
        name: value
        for name, value in row.raw.items()
        if name
        not in (
            "prompt",
            "completion",
            "instruction",
            "input",
            "output",
            "system",
            "conversations",
            "messages",
        )
    }
    asked_in = messages[:-1] if row.kind == "preference" else messages
    # Conversational pairs carry the question in both answers: the texts alone are kept
    if row.kind == "preference":
        raw |= {"chosen": row.answer, "rejected": row.rejected}
    return {
        **raw,
        "messages": [*written(asked_in)],
        "id": f"{row.id}~{method}{number}",
        "origin": "synthetic",
        "parent": row.id,
        "made_by": method,
    }


def synonyms_from(path: Path) -> dict[str, list[str]]:
    """A file with one group of synonyms on each line, separated by commas, or a JSON object of word
    -> list. Raises InputError.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read: {error}.",
            hint="Write one group of synonyms on each line: kettle, boiler.",
        ) from error
    found: dict[str, list[str]] = {}
    if path.suffix.lower() == ".json":
        try:
            value = json.loads(text)
        except ValueError as error:
            raise InputError(f"{path} is not JSON: {error}.") from error
        if not isinstance(value, dict) or not all(
            isinstance(item, list) and all(isinstance(word, str) for word in item)
            for item in value.values()
        ):
            raise InputError(
                f"{path} is not an object of words with lists of synonyms.",
                hint='Write {"kettle": ["boiler"]}.',
            )
        found = {text_key(word): item for word, item in value.items()}
    else:
        for line in split_lines(text):
            group = [word.strip() for word in line.split(",") if word.strip()]
            for word in group if not line.startswith("#") else []:
                found.setdefault(text_key(word), []).extend(
                    other for other in group if other != word
                )
    if not any(found.values()):
        raise InputError(
            f"{path} holds no synonyms.",
            hint="Write one group of synonyms on each line: kettle, boiler.",
        )
    return found
