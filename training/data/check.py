"""What a file of rows amounts to for the base in use: figures, what the model will see, and findings with what to do about each."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from training.base_model import open_base, quiet_environment
from training.data import labels, languages, pii
from training.data.formats import read_file
from training.data.leaks import find_leaks
from training.data.similar import Shape, clusters
from training.encode import Encoded, Encoder
from training.rows import BadLine, Reading, Row
from whet.context import Context

_BINS = 12
_PREVIEWS = 3  # rows shown as the model sees them
_LINES_SHOWN = 20  # line numbers that a finding's sentence lists; --json has all
ERROR, WARNING = "error", "warning"
_SMALL_PART = 0.05  # of the rows: a language rarer than this beside a main one is likelier a slip than a wish
_MAIN_PART = 0.8

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about the rows that somebody should decide on."""

    code: str
    severity: str  # error: a run refuses it | warning: a run goes on with it
    count: int
    found: str  # what, in a sentence
    do: str  # what to do about it
    lines: list[Any] = field(default_factory=list)  # line numbers, or lists of them that belong together

    def __str__(self) -> str:
        shown = ", ".join("+".join(map(str, line)) if isinstance(line, list) else str(line) for line in self.lines[:_LINES_SHOWN])
        where = f" Lines {shown}{', …' if len(self.lines) > _LINES_SHOWN else ''}." if self.lines else ""
        return f"{self.severity}: {self.found}{where} {self.do}"


def check(context: Context, file: Path, *, test: Path | None = None, region: str | None = None, progress: Progress = lambda stage: None) -> dict[str, Any]:
    """All figures and findings as plain data. Raises InputError when a file cannot be read, ConfigurationError when the base cannot."""
    quiet_environment()
    progress("reading")
    reading = read_file(file)
    base = open_base(context.settings)
    encoder = Encoder(base, min(base.max_positions, context.settings.engine_max_model_len))
    progress("rendering and tokenising")
    encoded, kept, refused = encoder.encode_all(reading.rows)
    figures = _figures(reading, encoded, kept, refused, base.stop_ids)
    spoken = languages.mix([row.answer for row in kept])
    findings = [
        *_refusals(reading, refused, bool(kept)),
        *_worse_answers(encoder, kept),
        *_mask(encoded, kept, base.stop_ids),
        *_texts(kept),
        *_languages(kept, *spoken),
        *_by_steps(kept, region, progress),
    ]
    if test is not None:
        progress("comparing with the test set")
        judged_by = read_file(test)
        findings += [*_unfit_to_judge(judged_by), *_leaks(kept, judged_by.rows)]
        figures["test_rejected"] = [bad.as_json() for bad in judged_by.bad]
    return {
        **figures,
        "longest_allowed": encoder.max_length,
        "duplicates": _count(findings, "duplicates"),
        "near_duplicates": _count(findings, "near_duplicates"),
        "conflicting_answers": _count(findings, "conflicts"),
        "languages": spoken[0],
        "labels": labels.counts(kept),
        "errors": sum(finding.severity == ERROR for finding in findings),
        "warnings": sum(finding.severity == WARNING for finding in findings),
        "findings": [asdict(finding) for finding in findings],
        "preview": _pieces(encoder, encoded[0]) if encoded else [],
        "previews": [{"line": row.line, "pieces": _pieces(encoder, tokens)} for row, tokens in zip(kept[:_PREVIEWS], encoded, strict=False)],
        "base": base.name,
        "template": base.template_digest[:8],
    }


def _count(findings: Sequence[Finding], code: str) -> int:
    return sum(finding.count for finding in findings if finding.code == code)


def _figures(reading: Reading, encoded: Sequence[Encoded], kept: Sequence[Row], refused: Sequence[BadLine], stop_ids: frozenset[int]) -> dict[str, Any]:
    lengths = sorted(len(row.ids) for row in encoded)
    bad = sorted([*reading.bad, *refused], key=lambda line: line.line)
    return {
        "rows": len(kept),
        "rejected": [line.as_json() for line in bad],
        "rejected_lines": len(bad),
        "empty_lines": len(reading.blank),
        "unknown_fields": reading.unknown_fields,
        "kinds": dict(Counter(row.kind for row in kept)),
        "tasks": dict(Counter(row.task for row in kept if row.task)),
        "origins": dict(Counter(row.origin for row in kept)),
        "with_checks": sum(bool(row.checks) for row in kept),
        "with_context": sum(bool(row.context) for row in kept),
        "tokens": sum(lengths),
        "tokens_learned": sum(row.trained_tokens for row in encoded),
        "tokens_per_row": {"median": lengths[len(lengths) // 2], "longest": lengths[-1]} if lengths else {},
        "truncated": 0,  # rows are refused, never cut: what is learned is what is served
        "too_long": sum(" tokens" in line.found for line in refused),
        "without_learned_token": sum(_learns_no_text(row, stop_ids) for row in encoded),
        "end_of_turn_learned": sum(_learns_to_stop(row, stop_ids) for row in encoded),
        "histogram": _histogram(lengths),
    }


def _learns_to_stop(row: Encoded, stop_ids: frozenset[int]) -> bool:
    return row.trained[-1] and row.ids[-1] in stop_ids


def _learns_no_text(row: Encoded, stop_ids: frozenset[int]) -> bool:
    return not any(trained and token not in stop_ids for token, trained in zip(row.ids, row.trained, strict=True))


def _histogram(lengths: Sequence[int]) -> list[dict[str, int]]:
    if not lengths:
        return []
    width = max(1, -(-(lengths[-1] + 1 - lengths[0]) // _BINS))
    counts = Counter((length - lengths[0]) // width for length in lengths)
    return [{"from": lengths[0] + width * number, "to": lengths[0] + width * (number + 1) - 1, "rows": counts[number]} for number in range(max(counts) + 1)]


def _pieces(encoder: Encoder, row: Encoded) -> list[dict[str, Any]]:
    """The row's text in runs of learned and unlearned tokens, control tokens included."""
    pieces: list[dict[str, Any]] = []
    start = 0
    for end in range(1, len(row.ids) + 1):
        if end == len(row.ids) or row.trained[end] != row.trained[start]:
            pieces.append({"text": encoder.base.tokenizer.decode(list(row.ids[start:end]), skip_special_tokens=False), "trained": row.trained[start]})
            start = end
    return pieces


# --- findings: each a list of none or one ----------------------------------------------------------------------------


def _refusals(reading: Reading, refused: Sequence[BadLine], any_row: bool) -> list[Finding]:
    found = []
    if reading.bad:
        lines = [bad.line for bad in reading.bad]
        found.append(
            Finding(
                "not_rows",
                ERROR,
                len(lines),
                f"{len(lines)} {reading.unit}s are not training rows.",
                "Correct them as listed, or train with --skip-bad.",
                lines,
            )
        )
    if refused:
        lines = [bad.line for bad in refused]
        found.append(
            Finding(
                "refused",
                ERROR,
                len(lines),
                f"{len(lines)} rows cannot be learned from with this base.",
                "Correct them as listed, or train with --skip-bad.",
                lines,
            )
        )
    if not any_row:
        found.append(Finding("no_rows", ERROR, 0, "No row is left to train on.", "Give at least one row in the documented format."))
    if reading.unknown_fields:
        names = ", ".join(sorted(reading.unknown_fields))
        found.append(
            Finding(
                "unknown_fields",
                WARNING,
                len(reading.unknown_fields),
                f"Fields without a meaning here: {names}.",
                "Look for a misspelt name; they are kept and not used.",
            )
        )
    return found


def _worse_answers(encoder: Encoder, kept: Sequence[Row]) -> list[Finding]:
    """Rejected answers go the way of the others, but only with methods that look at them."""
    pairs = [row for row in kept if row.rejected]
    bad = encoder.encode_all([replace(row, messages=(*row.messages[:-1], {"role": "assistant", "content": row.rejected})) for row in pairs])[2]
    do = "Correct or remove those rows: dpo, kto, orpo and rlhf refuse them; other methods never see a rejected answer."
    found = f"{len(bad)} rejected answers cannot be learned from with this base: {_first(bad)}."
    return [Finding("rejected_answers", ERROR, len(bad), found, do, [line.line for line in bad])] if bad else []


def _first(bad: Sequence[BadLine]) -> str:
    return "; ".join(map(str, bad[:3])) + ("; …" if len(bad) > 3 else "")


def _unfit_to_judge(test: Reading) -> list[Finding]:
    """What a run refuses in a test set: lines that are no rows, and rows that were made rather than met."""
    found = []
    if test.bad or not test.rows:
        said = f"{len(test.bad)} {test.unit}s of the test set are not rows: {_first(test.bad)}." if test.bad else "The test set holds no row."
        found.append(Finding("test_not_rows", ERROR, len(test.bad), said, "Correct them: nothing is judged by them.", [bad.line for bad in test.bad]))
    if made := [row.line for row in test.rows if row.origin == "synthetic"]:
        do = "Take them out: a version is judged by real rows."
        found.append(Finding("test_synthetic", ERROR, len(made), f"{len(made)} rows of the test set are synthetic.", do, made))
    return found


def _mask(encoded: Sequence[Encoded], kept: Sequence[Row], stop_ids: frozenset[int]) -> list[Finding]:
    silent = [row.line for row, tokens in zip(kept, encoded, strict=True) if _learns_no_text(tokens, stop_ids)]
    endless = [row.line for row, tokens in zip(kept, encoded, strict=True) if not _learns_to_stop(tokens, stop_ids)]
    found = []
    if silent:
        found.append(
            Finding(
                "nothing_learned",
                ERROR,
                len(silent),
                f"{len(silent)} rows have no token to learn.",
                "Take them out: such an answer is all placeholders of removed data.",
                silent,
            )
        )
    if endless:
        found.append(
            Finding(
                "no_stop",
                ERROR,
                len(endless),
                f"{len(endless)} rows do not teach to stop: their end-of-turn token is not learned.",
                "Correct the base's chat template.",
                endless,
            )
        )
    return found


def _texts(kept: Sequence[Row]) -> list[Finding]:
    broken = [row.line for row in kept if any(_is_broken(text) for text in (row.rejected, *(str(message["content"]) for message in row.messages)))]
    if not broken:
        return []
    return [Finding("broken_characters", WARNING, len(broken), f"{len(broken)} rows hold characters that a wrong decoding or a copy left behind.", "Read the source again in its own encoding; `whet data clean` takes out control characters.", broken)]  # fmt: skip


def _is_broken(text: str) -> bool:
    return "\ufffd" in text or (not text.isprintable() and any(unicodedata.category(character) == "Cc" and character not in "\n\t\r" for character in text))


def _by_steps(kept: Sequence[Row], region: str | None, progress: Progress) -> list[Finding]:
    found: list[Finding] = []
    for stage, step in (
        ("looking for duplicates", _duplicates),
        ("looking for near-duplicates", _near_duplicates),
        ("comparing answers to one question", _conflicts),
        ("counting labels", _imbalance),
        ("asking a classifier about labels", _label_errors),
    ):
        progress(stage)
        found += step(kept)
    progress("looking for personal data")
    return found + _personal(kept, region)


def _groups(keys: Sequence[Any], kept: Sequence[Row]) -> list[list[int]]:
    """Line numbers of rows with equal keys, where there are two or more."""
    lines: dict[Any, list[int]] = defaultdict(list)
    for key, row in zip(keys, kept, strict=True):
        lines[key].append(row.line)
    return [group for group in lines.values() if len(group) > 1]


def _duplicates(kept: Sequence[Row]) -> list[Finding]:
    groups = _groups([row.digest for row in kept], kept)
    count = sum(len(group) - 1 for group in groups)
    do = "Take them out with `whet data clean`, or give one row a weight: a repeated row counts several times."
    return [Finding("duplicates", WARNING, count, f"{count} rows repeat another one exactly.", do, groups)] if groups else []


def _near_duplicates(kept: Sequence[Row]) -> list[Finding]:
    first_of: dict[str, Row] = {}
    for row in kept:
        first_of.setdefault(row.digest, row)
    distinct = list(first_of.values())
    groups = _groups(clusters(distinct), distinct)
    count = sum(len(group) - 1 for group in groups)
    do = "They teach little more than one of them: take them out with `whet data clean --near`. The split never lets them into two parts."
    return [Finding("near_duplicates", WARNING, count, f"{count} rows are nearly the same as another one.", do, groups)] if groups else []


def _conflicts(kept: Sequence[Row]) -> list[Finding]:
    """Questions of the same words in the same frame, whatever their order and punctuation, with more than one answer.

    An answer that people rated as bad is none that is shown as right.
    """
    answers: dict[Any, dict[str, int]] = defaultdict(dict)
    for row in kept:
        if row.rating < 0:
            continue
        shape = Shape(row)
        frame = tuple(str(message["content"]) for message in row.messages if message["role"] in ("system", "developer"))
        answers[frame, row.context, frozenset(shape.question_words.items())].setdefault(" ".join(row.answer.split()), row.line)
    groups = [list(lines.values()) for lines in answers.values() if len(lines) > 1]
    do = "Keep the right answer: a model that is shown both learns neither."
    return [Finding("conflicts", WARNING, len(groups), f"{len(groups)} questions have more than one answer.", do, groups)] if groups else []


def _imbalance(kept: Sequence[Row]) -> list[Finding]:
    found = []
    for name, (many, most, few, least) in labels.imbalances(kept).items():
        do = "Give more rows of the rare one, or weigh them with `whet data mix --balance`: a model learns to say the common one."
        found.append(Finding("imbalance", WARNING, least, f"{name}: {many!r} stands in {most} rows and {few!r} in {least}.", do))
    return found


def _languages(kept: Sequence[Row], counts: dict[str, int], of_row: dict[int, str]) -> list[Finding]:
    known = sum(count for language, count in counts.items() if language != languages.UNKNOWN)
    main = next((language for language, count in counts.items() if language != languages.UNKNOWN and count >= _MAIN_PART * known), None)
    rare = (
        {language for language, count in counts.items() if language not in (main, languages.UNKNOWN) and count <= max(1, _SMALL_PART * known)}
        if main
        else set()
    )
    lines = [kept[position].line for position, language in of_row.items() if language in rare]
    do = "Look at them: answers in a second language teach to answer in it."
    names = ", ".join(sorted(rare))
    return [Finding("languages", WARNING, len(lines), f"{len(lines)} answers are in {names}, nearly all others in {main}.", do, lines)] if lines else []


def _label_errors(kept: Sequence[Row]) -> list[Finding]:
    suspects = labels.suspects(kept)
    do = "Read them first: a classifier that was trained on the other rows expects another label with confidence (cleanlab)."
    lines = [suspect.row.line for suspect in suspects]
    shown = "; ".join(f"line {suspect.row.line} says {suspect.row.answer!r}, expected {suspect.expected!r}" for suspect in suspects[:5])
    return [Finding("label_errors", WARNING, len(lines), f"{len(lines)} labels are probably wrong: {shown}.", do, lines)] if lines else []


def _personal(kept: Sequence[Row], region: str | None) -> list[Finding]:
    counts: Counter[str] = Counter()
    lines = []
    for row in kept:
        text = "\n".join([*(str(message["content"]) for message in row.messages), row.rejected, *row.context])
        if found := pii.find(text, region):
            counts.update(each.kind for each in found)
            lines.append(row.line)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    do = "Replace it with `whet data clean`; a model repeats what it has learned to whoever asks."
    return [Finding("personal_data", WARNING, len(lines), f"{len(lines)} rows hold personal data ({kinds}).", do, lines)] if lines else []


def _leaks(kept: Sequence[Row], test: Sequence[Row]) -> list[Finding]:
    leaks = find_leaks(kept, test)
    shown = "; ".join(map(str, leaks[:5]))
    do = "Take them out of one of the two; `whet train run --test` refuses them, and --drop-leaks takes them out of training."
    lines = [leak.row.line for leak in leaks]
    return [Finding("leaks", ERROR, len(leaks), f"{len(leaks)} rows are known from the test set: {shown}.", do, lines)] if leaks else []
