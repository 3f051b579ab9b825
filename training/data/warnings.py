"""What a run would learn without a word: warnings that follow from the rows alone.

One function a finding.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence

from training.data import labels, languages, pii
from training.data.finding import WARNING, Finding, warned
from training.data.oddities import SMALL_PART, oddities
from training.data.rows import Row
from training.data.similar import Shape, clusters
from training.data.wrong import shown
from whet.store import digest_json

_MAIN_PART = 0.8

Progress = Callable[[str], None]
# Answers by language, and the language of a row by its place
Spoken = tuple[dict[str, int], dict[int, str]]


def warnings(
    kept: Sequence[Row],
    region: str | None = None,
    *,
    spoken: Spoken | None = None,
    progress: Progress = lambda stage: None,
) -> list[Finding]:
    """Everything that is to be said about rows whatever the base.

    `spoken`: the answers' languages, where they are known already; `progress` is told what is
    looked for.
    """
    found = [
        *oddities(kept),
        *_languages(kept, *(spoken or languages.mix([row.words for row in kept]))),
    ]
    for stage, step in (
        ("looking for duplicates", _duplicates),
        ("looking for near-duplicates", _near_duplicates),
        ("comparing answers to one question", _conflicts),
        ("counting labels", _imbalance),
        ("comparing how labels are written", _spellings),
        ("asking a classifier about labels", _label_errors),
    ):
        progress(stage)
        found += step(kept)
    progress("looking for personal data")
    return found + _personal(kept, region)


def _groups(keys: Sequence[Hashable], kept: Sequence[Row]) -> list[list[int]]:
    """Line numbers of rows with equal keys, where there are two or more."""
    lines: dict[Hashable, list[int]] = defaultdict(list)
    for key, row in zip(keys, kept, strict=True):
        lines[key].append(row.line)
    return [group for group in lines.values() if len(group) > 1]


def _duplicates(kept: Sequence[Row]) -> list[Finding]:
    groups = _groups([row.digest for row in kept], kept)
    count = sum(len(group) - 1 for group in groups)
    found = f"{count:,} of {len(kept):,} rows repeat another one exactly, and count several times."
    do = (
        "Keep them, or train one row of each (--repeats weight, or remove); `whet data check FILE"
        " --verbose` lists them."
    )
    return [Finding("duplicates", WARNING, count, found, do, groups)] if groups else []


def _near_duplicates(kept: Sequence[Row]) -> list[Finding]:
    first_of: dict[str, Row] = {}
    for row in kept:
        first_of.setdefault(row.digest, row)
    distinct = list(first_of.values())
    groups = _groups(clusters(distinct), distinct)
    count = sum(len(group) - 1 for group in groups)
    found = f"{count:,} rows are nearly the same as another one, and teach little more than it."
    do = (
        "Take them out with `whet data clean FILE --near --into CLEAN`; `whet data check FILE"
        " --verbose` lists them."
    )
    return [Finding("near_duplicates", WARNING, count, found, do, groups)] if groups else []


def _conflicts(kept: Sequence[Row]) -> list[Finding]:
    """Questions of the same words in the same frame, whatever their order and punctuation, with
    more than one answer.

    An answer that people rated as bad is none that is shown as right.
    """
    answers: dict[Hashable, dict[str, int]] = defaultdict(dict)
    for row in kept:
        if row.rating < 0 or row.is_text:
            continue
        shape = Shape(row)
        frame = tuple(
            str(message["content"])
            for message in row.messages
            if message["role"] in ("system", "developer")
        )
        tools = digest_json(row.tools)
        answers[frame, row.context, tools, frozenset(shape.question_words.items())].setdefault(
            labels.label(row), row.line
        )
    groups = [list(lines.values()) for lines in answers.values() if len(lines) > 1]
    do = "Keep the right answer: a model that is shown both learns neither."
    return (
        [
            Finding(
                "conflicts",
                WARNING,
                len(groups),
                f"{len(groups)} questions have more than one answer.",
                do,
                groups,
            )
        ]
        if groups
        else []
    )


def _imbalance(kept: Sequence[Row]) -> list[Finding]:
    found = []
    for name, (many, most, few, least) in labels.imbalances(kept).items():
        do = (
            "Give more rows of the rare one, or weigh them with `whet data mix FILE --balance"
            " --into BALANCED`: a model learns to say the common one."
        )
        found.append(
            Finding(
                "imbalance",
                WARNING,
                least,
                f"{name}: {many!r} stands in {most} rows and {few!r} in {least}.",
                do,
            )
        )
    for name, (answer, count) in labels.monotonies(kept).items():
        do = "Give rows with other answers: a model learns to say it whatever it is asked."
        found.append(
            Finding(
                "imbalance",
                WARNING,
                count,
                f"{name}: all {count} rows have the answer {shown(answer)}.",
                do,
            )
        )
    return found


def _spellings(kept: Sequence[Row]) -> list[Finding]:
    found = labels.spellings(kept)
    rarer = [dict(list(ways.items())[1:]) for ways in found]
    lines = sorted(row.line for ways in rarer for rows in ways.values() for row in rows)
    said = "; ".join(
        f"{next(iter(ways))!r} also as {', '.join(map(repr, others))}"
        for ways, others in list(zip(found, rarer, strict=True))[:3]
    )
    do = "Write each in one way: the model learns the letters, and is judged by them."
    return warned(
        "spellings", lines, f"{len(found)} labels are written in several ways: {said}.", do
    )


def _languages(
    kept: Sequence[Row], counts: dict[str, int], of_row: dict[int, str]
) -> list[Finding]:
    known = sum(count for language, count in counts.items() if language != languages.UNKNOWN)
    main = next(
        (
            language
            for language, count in counts.items()
            if language != languages.UNKNOWN and count >= _MAIN_PART * known
        ),
        None,
    )
    rare = (
        {
            language
            for language, count in counts.items()
            if language not in (main, languages.UNKNOWN) and count <= max(1, SMALL_PART * known)
        }
        if main
        else set()
    )
    lines = [kept[position].line for position, language in of_row.items() if language in rare]
    do = "Look at them: answers in a second language teach to answer in it."
    names = ", ".join(sorted(rare))
    return (
        [
            Finding(
                "languages",
                WARNING,
                len(lines),
                f"{len(lines)} answers are in {names}, nearly all others in {main}.",
                do,
                lines,
            )
        ]
        if lines
        else []
    )


def _label_errors(kept: Sequence[Row]) -> list[Finding]:
    suspects = labels.suspects(kept)
    do = (
        "Read them first: a classifier that was trained on the other rows expects another label"
        " with confidence (cleanlab)."
    )
    lines = [suspect.row.line for suspect in suspects]
    shown = "; ".join(
        f"line {suspect.row.line} says {suspect.row.answer!r}, expected {suspect.expected!r}"
        for suspect in suspects[:5]
    )
    return (
        [
            Finding(
                "label_errors",
                WARNING,
                len(lines),
                f"{len(lines)} labels are probably wrong: {shown}.",
                do,
                lines,
            )
        ]
        if lines
        else []
    )


def _personal(kept: Sequence[Row], region: str | None) -> list[Finding]:
    counts: Counter[str] = Counter()
    lines = []
    for row in kept:
        if found := pii.find("\n".join(pii.texts_in(row.raw)), region):
            counts.update(each.kind for each in found)
            lines.append(row.line)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    do = (
        "Replace it with `whet data clean FILE --into CLEAN`; a model repeats what it has learned"
        " to whoever asks."
    )
    return (
        [
            Finding(
                "personal_data",
                WARNING,
                len(lines),
                f"{len(lines)} rows hold personal data ({kinds}).",
                do,
                lines,
            )
        ]
        if lines
        else []
    )
