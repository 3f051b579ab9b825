"""`whet data augment` and `whet data mix`: more rows, and rows of several sets in one.

Both join the commands of `data.py`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import typer

from training.commands.data import data
from training.commands.options import COLUMNS, ENCODING
from whet.cli import emit, err, out
from whet.clock import now_ms
from whet.errors import InputError

__all__ = ["data"]

_Json = typer.Option(False, "--json", help="Print one JSON document.")
_SkipBad = typer.Option(
    False, "--skip-bad", help="Leave out lines that are not rows, instead of refusing."
)


@data.command("augment")
def augment(
    file: Path = typer.Argument(
        ...,
        metavar="FILE",
        help="File of training rows: the training part of a split, never a test set.",
    ),
    into: Path = typer.Option(
        ..., "--into", help="File for the new rows (JSONL); a record is written beside it."
    ),
    methods: str = typer.Option(
        "swap,delete",
        "--methods",
        help="Some of swap, delete, insert, synonym, paraphrase, back-translate; taken in turn.",
    ),
    per_row: int = typer.Option(1, "--per-row", min=1, max=100, help="New rows for each row."),
    synonyms: Path | None = typer.Option(
        None,
        "--synonyms",
        help=(
            "File of synonyms: one group on each line, separated by commas, or JSON. Default:"
            " WordNet, where its data is installed."
        ),
    ),
    test: Path | None = typer.Option(
        None,
        "--test",
        help=(
            "Held-out rows that no new row may be like. Default: the other parts of the split in"
            " which FILE lies."
        ),
    ),
    endpoint: str = typer.Option(
        "",
        "--endpoint",
        help="OpenAI-compatible address, up to /v1, for paraphrase and back-translate.",
    ),
    model: str = typer.Option("", "--model", help="Model to ask there."),
    key_env: str = typer.Option(
        "OPENAI_API_KEY", "--key-env", help="Environment variable that holds the endpoint's key."
    ),
    through: str = typer.Option(
        "German", "--through", help="Language that back-translation goes through."
    ),
    language: str = typer.Option(
        "English", "--language", help="Language of the questions, for back-translation."
    ),
    seed: int = typer.Option(0, "--seed", help="Same seed and rows: same word changes."),
    with_originals: bool = typer.Option(
        False, "--with-originals", help="Write the rows of FILE too."
    ),
    skip_bad: bool = _SkipBad,
    columns: str = COLUMNS,
    encoding: str = ENCODING,
    as_json: bool = _Json,
) -> None:
    """New training rows: the question in other words, the answer as it is, marked synthetic with
    the row they were made from.
    """
    from rich.progress import Progress

    from training.data import augment as augmenting
    from training.data import record
    from training.data.formats import read_good, read_options
    from training.data.rewriting import MAX_TOKENS, TEMPERATURE, rewriters
    from training.endpoint import Endpoint

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
        words = (
            augmenting.synonyms_from(synonyms) if synonyms else augmenting.wordnet_synonyms(rows)
        )
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


@data.command("mix")
def mix(
    files: list[Path] = typer.Argument(
        ..., metavar="FILE...", help="Files of training rows; each is a set, named by its file."
    ),
    into: Path = typer.Option(
        ..., "--into", help="File for the rows (JSONL); a record is written beside it."
    ),
    temperature: float = typer.Option(
        1.0,
        "--temperature",
        help=(
            "1: every row counts alike; as it grows, every set does. Rates are proportional to"
            " rows^(1/temperature)."
        ),
    ),
    rows: int = typer.Option(
        0, "--rows", min=0, help="Rows of the mixture at most. Default: all, with weights."
    ),
    balance: bool = typer.Option(
        False,
        "--balance",
        help="Weigh rows so that every label of a task (or every task) counts alike.",
    ),
    replay: Path | None = typer.Option(
        None, "--replay", help="Earlier rows to mix in, against forgetting."
    ),
    share: float = typer.Option(
        0.2, "--share", help="Share of replayed rows in the result, 0 to 1."
    ),
    skip_bad: bool = _SkipBad,
    columns: str = COLUMNS,
    encoding: str = ENCODING,
    as_json: bool = _Json,
) -> None:
    """Rows of several sets in one, by weights: mixtures with a temperature, replay of earlier rows,
    balanced labels.
    """
    from training.data import mix as mixing
    from training.data import record
    from training.data.formats import read_good, read_options
    from training.rows import Row, read_objects

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
