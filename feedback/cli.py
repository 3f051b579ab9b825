"""`whet review`, `whet datasets`, `whet erase`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from whet.cli import actor, emit, opened, out, print_facts, show_stages
from whet.clock import iso, now_ms
from whet.context import Context
from whet.control_tokens import load_control_tokens
from whet.database import reading
from whet.errors import InputError
from whet.registry import alias_filter, known_aliases

if TYPE_CHECKING:
    from feedback.dataset_store import DatasetVersion

review = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Judge conversations: the queue, and what was decided.",
)
datasets = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Dataset versions built from reviewed conversations.",
)

_Json = Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")]
_Alias = Annotated[str, typer.Option("--alias", help="Only this alias.")]


@review.command("next")
def review_next(
    alias: _Alias = "",
    reason: Annotated[str, typer.Option(help="Only this reason.")] = "",
    as_json: _Json = False,
) -> None:
    """Claim the next conversation and print it. Exit code 0 also when the queue is empty."""
    from feedback import claims, inbox

    with opened() as context:
        _require(context, alias)
        claim_ms = int(context.settings.review_claim_s * 1000)
        item_id = claims.next_item(
            context.database,
            actor(),
            claim_ms=claim_ms,
            now=now_ms(),
            wanted=claims.QueueFilter(alias, reason),
        )
        if item_id is None:
            emit({"item": None} if as_json else {"queue": "Nothing waits for review."}, as_json)
            return
        with reading(context.database) as connection:
            view = inbox.load(connection, item_id)
        emit(view.as_json(), as_json)


@review.command("stats")
def review_stats(alias: _Alias = "", as_json: _Json = False) -> None:
    """What waits, what was decided today, and how fast."""
    from feedback import inbox

    with opened() as context, reading(context.database) as connection:
        _require(context, alias)
        emit(inbox.stats(connection, reviewer=actor(), now=now_ms(), alias=alias or None), as_json)


@review.command("decide")
def review_decide(
    item_id: Annotated[str, typer.Argument(metavar="ITEM")],
    decision: Annotated[str, typer.Argument(metavar="approve|edit|reject|skip")],
    answer: Annotated[
        str, typer.Option(help="The right answer, for `edit`; `-` reads it from standard input.")
    ] = "",
    label: Annotated[list[str] | None, typer.Option(help="May be given several times.")] = None,
    tool_calls: Annotated[
        str,
        typer.Option(help="Calls of tools of an edited answer: a JSON list of name, arguments."),
    ] = "",
    note: str = "",
    accept_cut: Annotated[
        bool, typer.Option(help="Approve although the answer ended at its token limit.")
    ] = False,
    accept_labels: Annotated[
        bool, typer.Option(help="Approve although a label says what is wrong with the answer.")
    ] = False,
    passage_verdict: Annotated[
        str,
        typer.Option(
            metavar="missing|wrong|ignored", help="What was wrong with the passages of its prompt."
        ),
    ] = "",
    passage: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Which passage; may be given several times."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Record a decision."""
    from feedback import queue
    from feedback.calls import read_calls

    text = sys.stdin.read().rstrip("\n") if answer == "-" else answer
    with opened() as context:
        called = read_calls(tool_calls) if tool_calls else None
        said = queue.Decision(
            decision, text or None, label or [], note, tool_calls=called, accept_cut=accept_cut,
            accept_labels=accept_labels, passage_verdict=passage_verdict, passage_ids=passage or [],
        )  # fmt: skip
        outcome = queue.decide(
            context.database, item_id, actor(), said, now=now_ms(),
            control=load_control_tokens(context),
        )  # fmt: skip
        emit(asdict(outcome), as_json)


@datasets.command("build")
def datasets_build(alias: _Alias = "", note: str = "", as_json: _Json = False) -> None:
    """Build a version from all standing examples; the same rows give the same version."""
    from feedback import datasets as versions

    with opened() as context:
        built = versions.build_reported(
            context, alias or context.settings.default_alias, actor=actor(), now=now_ms(), note=note
        )
        counts = {"left_out": len(built.left_out), "control_token_rows": built.control_token_rows}
        emit({**_brief(built.version), **counts}, as_json)


@datasets.command("import")
def datasets_import(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE…",
            help="Training rows: JSONL, JSON, CSV, Parquet, or a folder that `datasets` saved.",
        ),
    ],
    alias: Annotated[
        str, typer.Option("--alias", help="Name of the version. Default: default_alias.")
    ] = "",
    test: Annotated[
        Path | None, typer.Option("--test", help="Rows to judge by, instead of a part of FILE.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            "--method", help="Method that is to learn them: what its run refuses is refused."
        ),
    ] = "lora",
    no_split: Annotated[
        bool, typer.Option("--no-split", help="All rows of FILE are for training.")
    ] = False,
    hold_out: Annotated[
        str,
        typer.Option("--hold-out", help="Held out together: pattern, question, user, or auto."),
    ] = "auto",
    by_time: Annotated[
        str, typer.Option("--by-time", help="Field with a time: the newest rows are held out.")
    ] = "",
    repeats: Annotated[
        str, typer.Option("--repeats", help="Exact repeats: keep, weight or remove.")
    ] = "keep",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out rows that cannot be learned from.")
    ] = False,
    drop_leaks: Annotated[
        bool,
        typer.Option(
            "--drop-leaks", help="Go on where more than a tenth of the rows has to be dropped."
        ),
    ] = False,
    columns: Annotated[
        str,
        typer.Option("--columns", help="Which field is which: prompt=Frage,completion=Antwort."),
    ] = "",
    encoding: Annotated[
        str, typer.Option("--encoding", help="Of text files that do not say it themselves.")
    ] = "",
    note: str = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read, check and part the rows; store nothing.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Make a version of files; the same rows are the same version. Reviewed rows build upon it."""
    from feedback.importing import import_files
    from whet.row_files import RowFileOptions

    options = RowFileOptions(
        test, method, no_split, hold_out, by_time, repeats, skip_bad, drop_leaks, columns, encoding
    )
    with opened() as context:
        name = alias or context.settings.default_alias
        with show_stages() as progress:
            made = import_files(
                context, name, files, options,
                actor=actor(), now=now_ms(), note=note, is_dry_run=dry_run, progress=progress,
            )  # fmt: skip
        if as_json:
            emit(made.as_json(), True)
            return
        for notice in made.notices:
            out.print(f"• {notice}", markup=False, soft_wrap=True)
        label = made.version.label if made.version else f"the next version of {name}"
        state = "stored" if made.is_new else "exists already with exactly these rows"
        facts = {
            "version": f"{label} ({'nothing is stored in a dry run' if dry_run else state})",
            "rows": ", ".join(f"{count} {part}" for part, count in made.folder.rows.items()),
            "digest": made.folder.digest,
        }
        if made.version:
            facts["next"] = f"whet train run --dataset {made.version.label} --alias {name}"
        print_facts(facts)


@datasets.command("list")
def datasets_list(alias: _Alias = "", as_json: _Json = False) -> None:
    """Versions, newest first."""
    from feedback import datasets as versions

    with opened() as context, reading(context.database) as connection:
        _require(context, alias)
        rows = [_brief(version) for version in versions.list_versions(connection, alias or None)]
    if not as_json:  # eight characters of a digest are enough for every command
        rows = [
            {**row, "digest": row["digest"][:8], "created": row["created"][:16]} for row in rows
        ]
    columns = [
        "version", "source", "train", "validation", "test", "reviewed", "digest", "created",
    ]  # fmt: skip
    emit(rows, as_json, columns=columns, title="dataset versions")


@datasets.command("show")
def datasets_show(
    reference: Annotated[
        str,
        typer.Argument(metavar="VERSION", help="support@3, support (its newest), or a digest."),
    ],
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="The ids too: of examples and left-out rows.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """One version: rows, weight of reviewed rows, what was replaced or left out and why."""
    from feedback import datasets as versions
    from feedback.dataset_text import about_json, facts_of, ids_of

    with opened() as context:
        with reading(context.database) as connection:
            version = versions.find(connection, reference)
            parents = versions.labels(connection, version.parents)
        about = versions.manifest(context.store, version.path)
        origins = versions.origins(context.store, version.path)
        if as_json:
            shown = {**asdict(version), "label": version.label, "origins": origins}
            emit({**shown, **about_json(about)}, True)
            return
        print_facts(facts_of(version, about, parents, origins))
        if not verbose:
            out.print(f"`whet datasets show {version.label} --verbose` prints the ids.")
            return
        for title, rows in ids_of(version, about).items():
            out.print()
            emit(rows, False, title=title)


@datasets.command("retraining")
def datasets_retraining(alias: _Alias = "", as_json: _Json = False) -> None:
    """What the retraining policy sees of each alias now, and what it would decide."""
    from feedback import retraining

    with opened() as context:
        with reading(context.database) as connection:
            chosen = alias_filter(connection, alias)
            names = [chosen] if chosen else known_aliases(connection)
        found = [retraining.as_json(context, name, now_ms()) for name in names]
        if as_json:
            emit(found, True)
            return
        rows = [
            {
                "alias": row["alias"],
                "state": row["decision"]["code"],
                "new": row["state"]["new_examples"],
                "sentence": row["decision"]["reason"],
            }
            for row in found
        ]
        emit(rows, False, title="aliases")


@datasets.command("diff")
def datasets_diff(a: str, b: str, as_json: _Json = False) -> None:
    """What changed from version A to version B."""
    from feedback import datasets as versions

    with opened() as context:
        with reading(context.database) as connection:
            first, second = versions.find(connection, a), versions.find(connection, b)
        found = versions.diff(context, first, second)
        if as_json:
            emit(asdict(found), True)
            return
        rows = [
            {
                "change": change,
                "split": split,
                "id": row.get("id"),
                "origin": row.get("origin", "seed"),
            }
            for change, by_split in (("added", found.added), ("removed", found.removed))
            for split, changed in by_split.items()
            for row in changed
        ]
        rows += [
            {
                "change": "moved",
                "split": f"{row['from']} → {row['to']}",
                "id": row["id"],
                "origin": "",
            }
            for row in found.moved
        ]
        emit(
            rows,
            False,
            title=(
                f"changes from {first.label} to {second.label}; {found.unchanged} rows are in both"
            ),
        )


@datasets.command("export")
def datasets_export(
    reference: Annotated[str, typer.Argument(metavar="VERSION")],
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    as_json: _Json = False,
) -> None:
    """Copy a version's files: train.jsonl, validation.jsonl, test.jsonl, manifest.json."""
    from feedback import datasets as versions

    with opened() as context:
        with reading(context.database) as connection:
            version = versions.find(connection, reference)
        emit(
            {
                "version": version.label,
                "files": [str(file) for file in versions.export(context, version, folder)],
            },
            as_json,
        )


def erase(
    user: Annotated[
        str, typer.Option("--user", help="The end user, as the application names them in `user`.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: _Json = False,
) -> None:
    """Erase one end user: examples withdrawn and blanked, review texts removed, a receipt kept.
    The scheduler deletes the conversations and ratings within a minute."""
    from feedback.erasing import erase_user

    if not yes and not as_json:
        typer.confirm("This removes the user's reviewed texts for good. Go on?", abort=True)
    if as_json and not yes:
        raise InputError("`--json` does not ask, so it needs `--yes`.")
    with opened() as context:
        receipt = erase_user(
            context.database, context.store, user,
            secret=context.secret, actor=actor(), now=now_ms(),
        )  # fmt: skip
        emit(receipt, as_json)


def _require(context: Context, alias: str) -> None:
    with reading(context.database) as connection:
        alias_filter(connection, alias)


def _brief(version: DatasetVersion) -> dict[str, Any]:
    return {
        "version": version.label,
        "source": version.source,
        **version.rows,
        "reviewed": len(version.example_ids),
        "digest": version.digest,
        "created": iso(version.created_at),
        "by": version.created_by,
        "note": version.note,
    }
