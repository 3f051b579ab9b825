"""`whet data augment` and `whet data mix`: more rows, and rows of several sets in one.

Both join the commands of `data.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypedDict

from rich.progress import Progress

from training.data import augment as augmenting
from training.data import mix as mixing
from training.data import record
from training.data.formats import read_good, read_options
from training.data.rewriting import MAX_TOKENS, TEMPERATURE, rewriters
from training.data.rows import Row, read_objects
from training.endpoint import Endpoint
from training.optional import WORDNET
from whet.cli import emit, err, out
from whet.clock import now_ms
from whet.errors import InputError
from whet.json_types import JsonObject
from whet.lazy import load


def augment(
    *,
    file: Path,
    into: Path,
    methods: str,
    per_row: int,
    synonyms: Path | None,
    test: Path | None,
    endpoint: str,
    model: str,
    key_env: str,
    through: str,
    language: str,
    seed: int,
    with_originals: bool,
    skip_bad: bool,
    columns: str,
    encoding: str,
    as_json: bool,
) -> None:
    """New training rows: the question in other words, the answer as it is, marked synthetic with
    the row they were made from.
    """

    record.refuse_existing(into)
    chosen = _methods(methods)
    options = read_options(columns, encoding)
    reading = read_good(file, skip_bad=skip_bad, options=options)
    rows, beside = reading.rows, _held_out_beside(file, test)
    held_out = [
        row for path in beside for row in read_good(path, skip_bad=False, options=options).rows
    ]
    words = _synonyms(chosen, synonyms, rows)
    asks = bool(set(augmenting.MODEL_METHODS) & set(chosen))
    rewrite = rewriters(_asked(endpoint, model, key_env), through, language) if asks else None
    work = partial(augmenting.augment, rows, methods=chosen, per_row=per_row, seed=seed)
    work = partial(work, held_out=held_out, synonyms=words, rewrite=rewrite)
    made = _with_bar(work, len(rows), quiet=as_json)
    refused = [bad.as_json() for bad in [*reading.bad, *made.refused]]
    written = record.write(
        into,
        [*([row.raw for row in rows] if with_originals else []), *made.rows],
        step="augment",
        sources=[file, *beside, *([synonyms] if synonyms else [])],
        libraries=("nltk",) if words and not synonyms else (),
        now_ms=now_ms(),
        facts={
            "seed": seed,
            "methods": chosen,
            "endpoint": endpoint if asks else None,
            "model": model if asks else None,
            **made.facts(),
            "refused": refused,
        },
    )
    if as_json:
        emit(written, True)
    else:
        _show_augmented(into, written["result"]["rows"], made, len(refused))


def _show_augmented(into: Path, rows: int, made: augmenting.Augmented, refused: int) -> None:
    emit(
        {
            "file": str(into),
            "rows": rows,
            "made": dict(made.made),
            "skipped": dict(made.skipped),
            "too near a held-out row": len(made.leaks),
            "refused": refused,
        },
        False,
    )


def _asked(url: str, model: str, key_env: str) -> Endpoint:
    """Raises InputError for an address or a model that is none."""
    key = os.environ.get(key_env, "")
    return Endpoint(url, model, key, temperature=TEMPERATURE, max_tokens=MAX_TOKENS)


def _with_bar(
    work: Callable[..., augmenting.Augmented], rows: int, *, quiet: bool
) -> augmenting.Augmented:
    with Progress(console=err, disable=quiet) as progress:
        task = progress.add_task("augmenting", total=rows)
        return work(on_row=lambda: progress.advance(task))


def _methods(given: str) -> list[str]:
    """Raises InputError for a name that is none."""
    chosen = [name.strip() for name in given.split(",") if name.strip()]
    known = (*augmenting.WORD_METHODS, *augmenting.MODEL_METHODS)
    unknown = sorted(set(chosen) - set(known))
    if not chosen or unknown:
        raise InputError(
            f"--methods {given!r} names {', '.join(unknown) if chosen else 'nothing'}; expected"
            f" some of {', '.join(known)}."
        )
    return chosen


def _held_out_beside(file: Path, test: Path | None) -> list[Path]:
    """The files of held-out rows that new rows must not repeat. Raises InputError for a held-out
    part itself."""
    part = file.resolve()  # a link to a held-out part is one, whatever its name
    of_split = (part.parent / "manifest.json").exists()
    if part.name in ("test.jsonl", "validation.jsonl") and of_split:
        raise InputError(
            f"{file} is a held-out part of a split.",
            hint=f"Augment {part.parent / 'train.jsonl'}: a version is judged by real rows.",
        )
    if test:
        return [test]
    siblings = [part.with_name(name) for name in ("validation.jsonl", "test.jsonl")]
    return [path for path in siblings if of_split and path.is_file() and path.stat().st_size]


def _synonyms(
    methods: list[str], file: Path | None, rows: Sequence[Row]
) -> Mapping[str, Sequence[str]] | None:
    """Words by word, of a file or WordNet; None where no method needs them. Raises InputError."""
    if not {"synonym", "insert"} & set(methods):
        return None
    words: Mapping[str, Sequence[str]] | None = (
        augmenting.synonyms_from(file) if file else load(WORDNET)(rows)
    )
    if words is None:
        raise InputError(
            "WordNet's data is not on this machine, and nothing is downloaded.",
            hint="Give --synonyms FILE, or install nltk's wordnet data.",
        )
    return words


def _require_names(files: list[Path]) -> None:
    if len({path.stem for path in files}) < len(files):
        raise InputError(
            "Two files have one name, and a set is named by its file.", hint="Rename one of them."
        )


class Replayed(TypedDict):
    """How many earlier rows a mixture holds."""

    taken: int
    share: float
    replaced: int


def _replayed(
    sets: Mapping[str, Sequence[Row]],
    result: list[JsonObject],
    file: Path,
    stored: Sequence[Row],
    share: float,
    notices: list[str],
) -> tuple[list[JsonObject], dict[str, Replayed]]:
    """Return the rows with earlier ones after them, and the facts of it; adds notices."""
    new = [row for members in sets.values() for row in members]
    earlier, replaced = mixing.replay(new, stored, share)
    result = result + [row.raw for row in earlier]
    if len(earlier) < round(len(new) * share / (1 - share)):
        notices.append(
            f"{file} has too few rows for a share of {share:g}: {len(earlier)} are replayed."
        )
    if replaced:
        notices.append(
            f"{len(replaced)} earlier rows are left out, because a new row answers their question."
        )
    taken: Replayed = {
        "taken": len(earlier),
        "share": round(len(earlier) / len(result), 4),
        "replaced": len(replaced),
    }
    return result, {file.stem: taken}


def mix(
    *,
    files: list[Path],
    into: Path,
    temperature: float,
    rows: int,
    balance: bool,
    replay: Path | None,
    share: float,
    skip_bad: bool,
    columns: str,
    encoding: str,
    as_json: bool,
) -> None:
    """Rows of several sets in one, by weights: mixtures with a temperature, replay of earlier rows,
    balanced labels.
    """

    record.refuse_existing(into)
    _require_names(files)
    refused: list[dict[str, object]] = []
    options = read_options(columns, encoding)

    def rows_of(path: Path) -> list[Row]:
        reading = read_good(path, skip_bad=skip_bad, options=options)
        refused.extend({"file": str(path), **bad.as_json()} for bad in reading.bad)
        return reading.rows

    sets: dict[str, list[Row]] = {path.stem: rows_of(path) for path in files}
    mixed = mixing.mix(sets, temperature=temperature, rows=rows)
    result, notices = mixed.rows, list(mixed.notices)
    facts: dict[str, object] = {"sets": mixed.sets}
    if replay is not None:
        result, facts["replay"] = _replayed(sets, result, replay, rows_of(replay), share, notices)
    if balance:
        again = read_objects(enumerate(result, start=1), unit="row")
        refused += [{"file": str(into), **bad.as_json()} for bad in again.bad]
        result, classes, more = mixing.balance(again.rows)
        notices += more
        facts["classes"] = {name: {"weight": weight} for name, weight in classes.items()}
    written = record.write(
        into,
        result,
        step="mix",
        sources=[*files, *([replay] if replay else [])],
        now_ms=now_ms(),
        facts={
            "temperature": temperature,
            "notices": notices,
            "refused": refused,
            **facts,
        },
    )
    if as_json:
        emit(written, True)
        return
    for notice in notices:
        out.print(f"• {notice}", markup=False)
    emit({"file": str(into), "rows": len(result), "refused": len(refused), **facts}, False)
