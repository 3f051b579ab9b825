"""`whet adapters …` and `whet export …`: what is stored, what comes in, what goes out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer
from sqlalchemy import Connection, select

from whet.cli import actor, emit, opened, out
from whet.clock import iso, now_ms
from whet.database import reading
from whet.errors import InputError
from whet.registry import Adapter, alias_filter, find_adapter, list_adapters
from whet.tables import replicas

adapters = typer.Typer(no_args_is_help=True, help="Stored adapter versions.")
export = typer.Typer(no_args_is_help=True, help="Take a version out of Whet.")

_Json = typer.Option(False, "--json", help="Print one JSON document.")
_Reference = typer.Argument(
    ...,
    metavar="ADAPTER",
    help="A version such as support@v2, a name (its newest version) or a digest.",
)
_Folder = typer.Option(None, "--to", help="A folder that does not exist yet.")
_Hub = typer.Option("", "--push-to-hub", metavar="ORG/NAME", help="A model repository on the hub.")
_Public = typer.Option(False, "--public", help="Let everybody read a repository that is made.")


def _summary(adapter: Adapter) -> dict[str, Any]:
    fields = (
        "digest",
        "gate",
        "rank",
        "base_digest",
        "dataset_digest",
        "run_id",
        "path",
        "engine_name",
        "created_at",
        "removed_at",
    )
    return {"adapter": adapter.label, **{field: getattr(adapter, field) for field in fields}}


@adapters.command("list")
def list_all(
    name: str = typer.Option("", "--name", help="Only of this name."),
    removed: bool = typer.Option(False, "--removed", help="Removed versions too."),
    as_json: bool = _Json,
) -> None:
    """Versions, newest first."""
    with opened() as context:
        with reading(context.database) as connection:
            found = [
                _summary(adapter)
                for adapter in list_adapters(
                    connection, alias_filter(connection, name), removed=removed
                )
            ]
        if not as_json:
            found = [
                {
                    "adapter": row["adapter"],
                    "gate": row["gate"],
                    "rank": row["rank"],
                    "digest": row["digest"][:8],
                    "base": row["base_digest"][:8],
                    "created": iso(row["created_at"]),
                }
                for row in found
            ]
        emit(found, as_json, title="adapters")


@adapters.command("show")
def show(reference: str = _Reference, as_json: bool = _Json) -> None:
    """One version with its card."""
    with opened() as context:
        with reading(context.database) as connection:
            adapter = find_adapter(connection, reference)
            served_by = _served_by(connection, adapter)
        card = (
            adapter.card
            if as_json
            else {
                key: value
                for key, value in adapter.card.items()
                if key in ("recipe", "training", "libraries", "left_out", "imported", "merged")
            }
        )
        judged = adapter.card.get("evaluation") or {}
        shown = {
            **_summary(adapter),
            "verdict": judged.get("verdict", "none"),
            "reason": judged.get("reason", ""),
            "served_by": served_by,
            "card": card,
        }
        emit(shown if as_json else _for_people(shown), as_json)


def _for_people(shown: dict[str, Any]) -> dict[str, Any]:
    """What is known, with moments as people write them."""
    moments = {key: iso(shown[key]) for key in ("created_at", "removed_at") if shown.get(key)}
    return {key: value for key, value in {**shown, **moments}.items() if value not in (None, "")}


def _served_by(connection: Connection, adapter: Adapter) -> list[dict[str, Any]]:
    """Engines that proved the version, with their parity, and those that refused it, and why."""
    rows = connection.execute(select(replicas).order_by(replicas.c.url)).all()
    return [
        {
            "replica": row.url,
            "state": row.state,
            **row.ready.get(adapter.digest, {}),
            "ready": adapter.digest in row.ready,
            "refused": row.refused.get(adapter.digest),
        }
        for row in rows
    ]


@adapters.command("verify")
def verify(
    reference: str = typer.Argument("", metavar="[ADAPTER]", help="One version; without it, all."),
    as_json: bool = _Json,
) -> None:
    """Hash the stored files again. Exit code 1 at the first that is not what was stored."""
    with opened() as context:
        from training import adapter_store

        with reading(context.database) as connection:
            some = [find_adapter(connection, reference)] if reference else list_adapters(connection)
        for adapter in some:
            adapter_store.verify(context, adapter)
        emit(
            [
                {"adapter": adapter.label, "digest": adapter.digest, "intact": True}
                for adapter in some
            ],
            as_json,
            title="adapters",
        )


@adapters.command("import")
def import_folder(
    folder: Path = typer.Argument(
        ...,
        metavar="FOLDER",
        help="A PEFT folder: adapter_config.json and adapter_model.safetensors.",
    ),
    name: str = typer.Option(
        "", "--name", help="Name of the adapter. Default: the setting default_alias."
    ),
    accept_base: bool = typer.Option(
        False,
        "--accept-base",
        help="Though it names another base on the hub: both are the same weights.",
    ),
    as_json: bool = _Json,
) -> None:
    """Check an adapter that was trained elsewhere, and store it as a new version."""
    with opened() as context:
        from training.base_model import import_transformers, open_base

        import_transformers()
        from training.adapter_import import import_adapter

        alias = name or context.settings.default_alias
        base = open_base(context.settings)
        began = now_ms()
        stored, origin = import_adapter(
            context, folder, alias, base, actor=actor(), accept_base=accept_base
        )
        notices = list(origin.notices)
        if stored.created_at < began:
            notices.append(f"The same content was stored before, as {stored.label}.")
        printed = {
            **_summary(stored),
            "declared_base": origin.base,
            "declared_revision": origin.revision,
            "notice": " ".join(notices),
            "next": f"whet rollout promote {stored.name}",
        }
        emit(printed if as_json else _for_people(printed), as_json)


@adapters.command("merge")
def merge(
    references: list[str] = typer.Argument(
        ..., metavar="ADAPTER…", help="Two or more versions of one base."
    ),
    name: str = typer.Option(..., "--name", help="Name of the new version."),
    weights: str = typer.Option(
        "", "--weights", help="One for each, such as 0.7,0.3. Default: equal shares of 1."
    ),
    combination: str = typer.Option(
        "cat",
        "--combination",
        help="PEFT's: cat (exact, ranks add up), svd (nearest of the largest rank), linear, ties, "
        "dare_ties, dare_linear, magnitude_prune, and the last four with _svd.",
    ),
    density: float | None = typer.Option(
        None, "--density", help="Share of the values that ties, dare and prune keep. Default: 0.5."
    ),
    as_json: bool = _Json,
) -> None:
    """Combine versions of one base into a new one: a weighted sum of weights, not of answers."""
    with opened() as context:
        from training.base_model import import_transformers, open_base

        import_transformers()
        from training.adapter_merge import MergeRecipe, merge_adapters

        shares = _shares(weights) or (1 / len(references),) * len(references)
        with reading(context.database) as connection:
            versions = [find_adapter(connection, reference) for reference in references]
        recipe = MergeRecipe(shares, combination, density)
        base = open_base(context.settings)
        stored = merge_adapters(context, versions, recipe, name, base, actor=actor())
        parts = zip(versions, shares, strict=True)
        emit(
            {
                "adapter": stored.label,
                "digest": stored.digest,
                "rank": stored.rank,
                "merged": {version.label: round(share, 4) for version, share in parts},
                "combination": combination,
                "notice": "Weights were combined, not what the versions know: how much of each "
                "task is left is not known before it is evaluated.",
                "next": f"whet eval run {stored.label} --test FILE",
            },
            as_json,
        )


def _shares(given: str) -> tuple[float, ...]:
    """Raises InputError."""
    try:
        return tuple(float(part) for part in given.split(",") if part.strip())
    except ValueError as error:
        raise InputError(
            f"The weights are {given!r}; expected numbers.", hint="Such as --weights 0.7,0.3"
        ) from error


@adapters.command("remove")
def remove(reference: str = _Reference, as_json: bool = _Json) -> None:
    """Withdraw a version. Refused while an alias points to it."""
    with opened() as context:
        from training import adapter_store

        removed = adapter_store.remove(context, reference, actor=actor(), now=now_ms())
        emit(
            {
                "adapter": removed.label,
                "removed": True,
                "files": "deleted an hour from now, once no engine holds them",
            },
            as_json,
        )


@export.command("adapter")
def export_adapter(
    reference: str = _Reference,
    to: Path | None = _Folder,
    push_to_hub: str = _Hub,
    public: bool = _Public,
    as_json: bool = _Json,
) -> None:
    """Copy a version in PEFT's format, with its card, to a folder or the Hugging Face hub."""
    with opened() as context:
        _require_place(to, push_to_hub)
        from training.export import export_adapter as copy

        with reading(context.database) as connection:
            adapter = find_adapter(connection, reference)
        placed = _place(
            to, push_to_hub, adapter, lambda folder: copy(context, adapter, folder), public
        )
        emit({"adapter": adapter.label, **placed}, as_json)


@export.command("merge")
def export_merged(
    reference: str = _Reference,
    to: Path | None = _Folder,
    push_to_hub: str = _Hub,
    public: bool = _Public,
    as_json: bool = _Json,
) -> None:
    """The base with the version merged into its weights: a whole model that needs no adapter."""
    with opened() as context:
        _require_place(to, push_to_hub)
        from training.base_model import open_base, quiet_environment
        from training.export import export_merged as merge

        quiet_environment()
        with reading(context.database) as connection:
            adapter = find_adapter(connection, reference)
        base = open_base(context.settings)
        placed = _place(
            to, push_to_hub, adapter, lambda folder: merge(context, adapter, base, folder), public
        )
        emit({"adapter": adapter.label, **placed}, as_json)


@export.command("gguf")
def export_gguf(
    reference: str = _Reference,
    to: Path = typer.Option(..., "--out", metavar="FILE", help="A file that does not exist yet."),
    type_name: str = typer.Option(
        "f16", "--type", help="What matrices are stored as: f32, f16, bf16 or q8_0."
    ),
    adapter_only: bool = typer.Option(
        False, "--adapter", help="The adapter alone, to be loaded beside a GGUF file of its base."
    ),
    as_json: bool = _Json,
) -> None:
    """A GGUF file for llama.cpp and Ollama: the merged model with tokenizer and chat template."""
    with opened() as context:
        from training.base_model import open_base, quiet_environment

        quiet_environment()
        from training.export import export_gguf as write
        from training.export import export_gguf_adapter as write_adapter

        with reading(context.database) as connection:
            adapter = find_adapter(connection, reference)
        base = open_base(context.settings)
        made = (
            write_adapter(context, adapter, base, to)
            if adapter_only
            else write(context, adapter, base, to, type_name)
        )
        shown = {"adapter": adapter.label, **made.as_json()}
        if as_json:
            emit(shown, True)
            return
        emit({key: value for key, value in shown.items() if value and key != "notices"}, False)
        for notice in made.notices:
            out.print(f"• {notice}", markup=False, soft_wrap=True)


def _require_place(to: Path | None, repository: str) -> None:
    """Raises InputError when there is nowhere to export to."""
    if repository:
        from training.hub import check_repository

        check_repository(repository)
    elif to is None:
        raise InputError(
            "There is nowhere to export to.",
            hint="Give --to FOLDER, --push-to-hub ORG/NAME, or both.",
        )


def _place(
    to: Path | None,
    repository: str,
    adapter: Adapter,
    write: Callable[[Path], None],
    is_public: bool,
) -> dict[str, str]:
    """Writes the folder and uploads it; returns where it is. Raises InputError, StoreError."""
    with TemporaryDirectory(prefix="whet-export-") as scratch:
        folder = to or Path(scratch) / "export"
        write(folder)
        placed = {"folder": str(to)} if to else {}
        if repository:
            from training.hub import PRIVATE_FILES, push_folder

            message = f"Upload {adapter.label} ({adapter.digest[:8]})"
            placed["repository"] = push_folder(
                folder, repository, is_public=is_public, message=message
            )
            placed["notice"] = (
                f"{', '.join(PRIVATE_FILES)} was not uploaded: it holds held-out conversations."
            )
    return placed
