"""`whet data augment` and `whet data mix`: more rows, and rows of several sets in one.

Both join the commands of `data.py`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

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
    chosen = [name.strip() for name in methods.split(",") if name.strip()]
    known = (*augmenting.WORD_METHODS, *augmenting.MODEL_METHODS)
    if not chosen or (unknown := sorted(set(chosen) - set(known))):
        raise InputError(
            f"--methods {methods!r} names {', '.join(unknown) if chosen else 'nothing'}; expected"
            f" some of {', '.join(known)}."
        )
    options = read_options(columns, encoding)
    reading = read_good(file, skip_bad=skip_bad, options=options)
    rows, part = reading.rows, file.resolve()  # a link to a held-out part is one, whatever its name
    of_split = (part.parent / "manifest.json").exists()
    if part.name in ("test.jsonl", "validation.jsonl") and of_split:
        raise InputError(
            f"{file} is a held-out part of a split.",
            hint=f"Augment {part.parent / 'train.jsonl'}: a version is judged by real rows.",
        )
    siblings = (
        [part.with_name(name) for name in ("validation.jsonl", "test.jsonl")] if of_split else []
    )
    beside = (
        [test] if test else [path for path in siblings if path.is_file() and path.stat().st_size]
    )
    held_out = [
        row for path in beside for row in read_good(path, skip_bad=False, options=options).rows
    ]
    words = None
    if {"synonym", "insert"} & set(chosen):
        words = augmenting.synonyms_from(synonyms) if synonyms else load(WORDNET)(rows)
        if words is None:
            raise InputError(
                "WordNet's data is not on this machine, and nothing is downloaded.",
                hint="Give --synonyms FILE, or install nltk's wordnet data.",
            )
    asks = bool(set(augmenting.MODEL_METHODS) & set(chosen))
    rewrite = None
    if asks:
        asked = Endpoint(
            endpoint,
            model,
            os.environ.get(key_env, ""),
            temperature=TEMPERATURE,
            max_tokens=MAX_TOKENS,
        )
        rewrite = rewriters(asked, through, language)
    with Progress(console=err, disable=as_json) as progress:
        task = progress.add_task("augmenting", total=len(rows))
        made = augmenting.augment(
            rows,
            methods=chosen,
            per_row=per_row,
            seed=seed,
            held_out=held_out,
            synonyms=words,
            rewrite=rewrite,
            on_row=lambda: progress.advance(task),
        )
    refused = [bad.as_json() for bad in [*reading.bad, *made.refused]]
    written = record.write(
        into, [*([row.raw for row in rows] if with_originals else []), *made.rows], step="augment", sources=[file, *beside, *([synonyms] if synonyms else [])],
        libraries=("nltk",) if words and not synonyms else (), now_ms=now_ms(), seed=seed, methods=chosen, endpoint=endpoint if asks else None, model=model if asks else None,
        made=dict(made.made), skipped=dict(made.skipped), leaks=[str(leak) for leak in made.leaks], refused=refused,
    )  # fmt: skip
    if as_json:
        emit(written, True)
        return
    emit(
        {
            "file": str(into),
            "rows": written["result"]["rows"],
            "made": dict(made.made),
            "skipped": dict(made.skipped),
            "too near a held-out row": len(made.leaks),
            "refused": len(refused),
        },
        False,
    )


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
    if len({path.stem for path in files}) < len(files):
        raise InputError(
            "Two files have one name, and a set is named by its file.", hint="Rename one of them."
        )
    refused: list[dict[str, Any]] = []
    options = read_options(columns, encoding)

    def rows_of(path: Path) -> list[Row]:
        reading = read_good(path, skip_bad=skip_bad, options=options)
        refused.extend({"file": str(path), **bad.as_json()} for bad in reading.bad)
        return reading.rows

    sets: dict[str, list[Row]] = {path.stem: rows_of(path) for path in files}
    mixed = mixing.mix(sets, temperature=temperature, rows=rows)
    result, notices = mixed.rows, list(mixed.notices)
    facts: dict[str, Any] = {"sets": mixed.sets}
    if replay is not None:
        new = [row for members in sets.values() for row in members]
        earlier, replaced = mixing.replay(new, rows_of(replay), share)
        result = result + [row.raw for row in earlier]
        facts["replay"] = {
            replay.stem: {
                "taken": len(earlier),
                "share": round(len(earlier) / len(result), 4),
                "replaced": len(replaced),
            }
        }
        if len(earlier) < round(len(new) * share / (1 - share)):
            notices.append(
                f"{replay} has too few rows for a share of {share:g}: {len(earlier)} are replayed."
            )
        if replaced:
            notices.append(
                f"{len(replaced)} earlier rows are left out, because a new row answers their"
                " question."
            )
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
        temperature=temperature,
        notices=notices,
        refused=refused,
        **facts,
    )
    if as_json:
        emit(written, True)
        return
    for notice in notices:
        out.print(f"• {notice}", markup=False)
    emit({"file": str(into), "rows": len(result), "refused": len(refused), **facts}, False)
