"""What a file of rows amounts to for the base in use: figures, what the model will see, and
findings with what to do about each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from training.data import labels, languages
from training.data.check_report import CheckReport, Preview
from training.data.datasets import Shares, default_shares
from training.data.finding import ERROR, WARNING, Finding, warned
from training.data.formats import DEFAULTS, ReadOptions, read_file
from training.data.given import TEST, VALIDATION, held_out_files
from training.data.leaks import MIN_TEST_ROWS, MOST_DROPPED, drop_leaks
from training.data.rows import BadLine, Reading, Row
from training.data.split import split
from training.data.wanted import describe_others, fits
from training.data.warnings import Progress, warnings
from training.loop.pairs import refused as refused_answer
from training.models.base_choice import open_base
from training.models.base_model import BaseModel
from training.models.encode import NOTHING_TO_LEARN, Encoder
from training.models.encoded import Encoded
from training.recipes.methods import ANSWERS, Method, find
from training.recipes.recipe import load_recipe
from training.recipes.recipe_choices import resolved
from training.runs.row_figures import figures, first_windows, learns_to_stop, pieces
from whet.context import Context
from whet.web.filters import plural

_CORRECT = "Correct them as listed, or leave them out with --skip-bad."
# Rows up to which a check parts them as a run does: 10,000 took 31 s of processor time, more than
# all else together.
_PARTED = 20_000
_PREVIEWS = 3  # rows shown as the model sees them


def check(
    context: Context,
    file: Path,
    *,
    test: Path | None = None,
    region: str | None = None,
    method_name: str = "lora",
    options: ReadOptions = DEFAULTS,
    progress: Progress = lambda stage: None,
) -> CheckReport:
    """Return all figures and findings as plain data, for a run with the method.

    Raises InputError when a file cannot be read, ConfigurationError when the base cannot.
    """
    progress("reading")
    method = find(method_name)
    held_out = held_out_files(file, test)
    reading = read_file(file, options=options)
    base = open_base(context.settings)
    encoder = Encoder(base, longest_row(context, base, method))
    progress("rendering and tokenising")
    encoded, kept, refused = encoder.encode_all(reading.rows)
    spoken = languages.mix([row.words for row in kept])
    found = figures(reading, encoded, kept, refused, base.stop_ids)
    findings = [
        *_refusals(reading, refused, bool(kept)),
        *_rows_findings(encoder, method, encoded, kept, held_out),
        *warnings(kept, region, spoken=spoken, progress=progress),
    ]
    learned = _fitting(method, encoded, kept)  # what the previews show
    others: dict[str, list[Row]] = {}
    for part, path in held_out.items():
        progress(f"comparing with the {part} set")
        read = read_file(path, options=options)
        findings += _unfit(part, read, encoder, method)
        others[part] = [row for row in read.rows if row.rating >= 0]
        if part == TEST:
            found["test_rejected"] = [bad.as_json() for bad in read.bad]
    findings += _leaks(kept, others)
    if TEST not in held_out and len(kept) <= _PARTED:
        progress("parting as a run does")
        findings += _loss(kept, has_validation=bool(held_out))
    return {
        **found,
        "longest_allowed": encoder.max_length,
        "duplicates": _count(findings, "duplicates"),
        "near_duplicates": _count(findings, "near_duplicates"),
        "conflicting_answers": _count(findings, "conflicts"),
        "languages": spoken[0],
        "labels": labels.counts(kept),
        "errors": sum(each.severity == ERROR for each in findings),
        "warnings": sum(each.severity == WARNING for each in findings),
        "findings": [finding.as_json() for finding in findings],
        "preview": pieces(encoder, learned[0]) if learned else [],
        "previews": _previews(encoder, learned),
        "base": base.name,
        "template": base.template_digest[:8],
    }


def _previews(encoder: Encoder, learned: Sequence[Encoded]) -> list[Preview]:
    """The first rows as the base sees them."""
    return [
        {"line": line, "pieces": pieces(encoder, tokens)}
        for line, tokens in first_windows(learned, _PREVIEWS)
    ]


def _fitting(method: Method, encoded: Sequence[Encoded], kept: Sequence[Row]) -> list[Encoded]:
    gone = {row.line for row in kept if not fits(method, row)}
    return [tokens for tokens in encoded if tokens.line not in gone]


def _rows_findings(
    encoder: Encoder,
    method: Method,
    encoded: Sequence[Encoded],
    kept: Sequence[Row],
    held_out: Mapping[str, Path],
) -> list[Finding]:
    """What base and method make of the rows."""
    stop_ids = encoder.base.stop_ids
    return [
        *_other_rows(method, kept),
        *_few(kept, held_out),
        *_worse_answers(encoder, kept, method),
        *_no_stop(encoded, kept, stop_ids),
        *_unseen(encoder, kept),
    ]


def _count(findings: Sequence[Finding], code: str) -> int:
    return sum(finding.count for finding in findings if finding.code == code)


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
                _CORRECT if reading.rows else "Correct them as listed.",
                lines,
            )
        )
    if silent := [bad.line for bad in refused if bad.found == NOTHING_TO_LEARN]:
        do = "Take them out, or train with --skip-bad: all of the answer is removed data."
        found.append(
            Finding(
                "nothing_learned",
                ERROR,
                len(silent),
                f"{len(silent)} rows have no token to learn.",
                do,
                silent,
            )
        )
    if lines := [bad.line for bad in refused if bad.found != NOTHING_TO_LEARN]:
        said = f"{len(lines)} rows cannot be learned from with this base."
        found.append(Finding("refused", ERROR, len(lines), said, _CORRECT, lines))
    if not any_row:
        found.append(
            Finding(
                "no_rows",
                ERROR,
                0,
                "No row is left to train on.",
                "Give at least one row in the documented format.",
            )
        )
    if reading.unknown_fields:
        names = ", ".join(sorted(reading.unknown_fields))
        do = "They are stored and not used; --columns says which field one is, if it is any."
        count = len(reading.unknown_fields)
        found.append(Finding("ignored_columns", WARNING, count, f"Ignored columns: {names}.", do))
    return found


def longest_row(context: Context, base: BaseModel, method: Method) -> int:
    """Return the tokens that a row may have, as a run counts them."""
    recipe = load_recipe(method.name)
    room = min(base.max_positions, context.settings.engine_max_model_len)
    room -= recipe.virtual_tokens if "virtual_tokens" in method.reads else 0
    return resolved(recipe, parameters=base.parameters, max_length=room).max_length


def _other_rows(method: Method, kept: Sequence[Row]) -> list[Finding]:
    """What the method does not learn from: a run refuses it with the same sentence."""
    found, do, others = describe_others(method, kept)
    lines = [row.line for row in others]
    return [Finding("other_rows", ERROR, len(lines), found, do, lines)] if lines else []


def _few(kept: Sequence[Row], held_out: Mapping[str, Path]) -> list[Finding]:
    """Too few different questions to judge a version by, also in cross-validation."""
    different = len({row.prompt_digest for row in kept})
    if TEST in held_out or not kept or different >= MIN_TEST_ROWS:
        return []
    found = f"Only {plural(different, 'different question')}: a verdict takes {MIN_TEST_ROWS}."
    do = "Give test rows with --test, or more rows, to learn whether a version is good."
    return [Finding("few_rows", WARNING, different, found, do)]


def _worse_answers(encoder: Encoder, kept: Sequence[Row], method: Method) -> list[Finding]:
    """Rejected answers go the way of the others, but only with methods that look at them."""
    severity = WARNING if method.rows == ANSWERS else ERROR
    pairs = [row for row in kept if row.rejected]
    bad = encoder.encode_all(
        [
            replace(
                row, messages=(*row.messages[:-1], {"role": "assistant", "content": row.rejected})
            )
            for row in pairs
        ]
    )[2]
    do = (
        "Correct or remove those rows: dpo, kto, orpo, simpo and rlhf refuse them; other methods"
        " never see a rejected answer."
    )
    found = f"{len(bad)} rejected answers cannot be learned from with this base: {_first(bad)}."
    return (
        [Finding("rejected_answers", severity, len(bad), found, do, [line.line for line in bad])]
        if bad
        else []
    )


def _first(bad: Sequence[BadLine]) -> str:
    return "; ".join(map(str, bad[:3])) + ("; …" if len(bad) > 3 else "")


def _unfit(part: str, found: Reading, encoder: Encoder, method: Method) -> list[Finding]:
    """What a run refuses in a test or validation set: lines that are no rows, rows that the base
    cannot be asked, and in a test set rows that were made rather than met."""
    findings = []
    lines = [bad.line for bad in found.bad]
    do = f"Correct them: no {part} set is used in part."
    if found.bad:
        said = f"{len(lines)} {found.unit}s of the {part} set are not rows: {_first(found.bad)}."
        findings.append(Finding(f"{part}_not_rows", ERROR, len(lines), said, do, lines))
    elif not found.rows:
        said = f"The {part} set holds no row."
        findings.append(Finding(f"{part}_not_rows", ERROR, 0, said, "Give rows, or leave it out."))
    asked = [row for row in found.rows if row.rating >= 0]
    refused = encoder.encode_all(asked)[2]
    if method.rows != ANSWERS:
        refused += [bad for row in asked if (bad := refused_answer(encoder, row))]
    if refused:
        said = f"{len(refused)} rows of the {part} set do not fit this base: {_first(refused)}."
        lines = [bad.line for bad in refused]
        findings.append(Finding(f"{part}_refused", ERROR, len(refused), said, _CORRECT, lines))
    made = [row.line for row in found.rows if row.origin == "synthetic"]
    if made and part == TEST:
        do = "Take them out: a version is judged by real rows."
        said = f"{len(made)} rows of the test set are synthetic."
        findings.append(Finding("test_synthetic", ERROR, len(made), said, do, made))
    return findings


def _no_stop(
    encoded: Sequence[Encoded], kept: Sequence[Row], stop_ids: frozenset[int]
) -> list[Finding]:
    # Of a long text the last window
    stops = {tokens.line: learns_to_stop(tokens, stop_ids) for tokens in encoded}
    endless = [row.line for row in kept if not stops[row.line]]
    found = f"{len(endless)} rows do not teach to stop: their end-of-turn token is not learned."
    return (
        [
            Finding(
                "no_stop", ERROR, len(endless), found, "Correct the base's chat template.", endless
            )
        ]
        if endless
        else []
    )


def _unseen(encoder: Encoder, kept: Sequence[Row]) -> list[Finding]:
    missing = {row.line: what for row in kept if (what := encoder.unseen(row))}
    shown = "; ".join(
        f"line {line}: {', '.join(what[:3])}" for line, what in list(missing.items())[:3]
    )
    found = (
        f"{len(missing)} rows say what the base's chat template leaves out, so the model never sees"
        f" it ({shown})."
    )
    return warned(
        "unseen",
        list(missing),
        found,
        "Say it in a message's text, or train a base whose template renders it.",
    )


def _leaks(kept: Sequence[Row], held_out: Mapping[str, Sequence[Row]]) -> list[Finding]:
    """What a run drops to prevent leakage from held-out rows; an error where it would refuse."""
    parts = {name: list(held_out.get(name, ())) for name in (VALIDATION, TEST)}
    parts = {"train": list(kept), **parts}
    totals = {part: len(rows) for part, rows in parts.items()}
    leaks = drop_leaks(parts)
    if not leaks:
        return []
    shown = "; ".join(map(str, leaks[:5]))
    lost = {part: sum(leak.part == part for leak in leaks) for part in totals}
    is_refused = any(lost[part] > MOST_DROPPED * total for part, total in totals.items())
    counts = ", ".join(
        f"{lost[part]} of {totals[part]} {part} rows" for part in totals if lost[part]
    )
    found = f"{counts} would be dropped to prevent train/test leakage: {shown}."
    do = "Take them out of one of the two"
    do = f"{do}, or run with --drop-leaks." if is_refused else f"Nothing, or: {do.lower()}."
    lines = sorted({(leak.row if leak.part == "train" else leak.other).line for leak in leaks})
    return [Finding("leaks", ERROR if is_refused else WARNING, len(leaks), found, do, lines)]


def _loss(kept: Sequence[Row], *, has_validation: bool) -> list[Finding]:
    """Rows that a run would drop when it parts the file itself, where it refuses to for their
    number.
    """
    shares = default_shares(len(kept), separate_test=False)
    shares = Shares(0.0, shares.test) if has_validation else shares
    if not kept:
        return []
    made = split(kept, shares)
    if not made.large_loss:
        return []
    do = "Give test rows with --test, train on all (--no-split), or go on with --drop-leaks."
    return [Finding("large_loss", ERROR, len(made.dropped), f"{made.large_loss}.", do)]
