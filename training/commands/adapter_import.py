"""`whet adapters import` and `merge`."""

from __future__ import annotations

from pathlib import Path

from training.adapters.imports import import_adapter
from training.adapters.merge import MergeRecipe, merge_adapters
from training.commands.adapters import AdapterSummary, _for_people, _summary
from training.models.base_choice import open_base
from whet.cli import actor, emit, opened
from whet.clock import now_ms
from whet.database import reading
from whet.errors import InputError
from whet.registry import find_adapter


def import_folder(*, folder: Path, name: str, accept_base: bool, as_json: bool) -> None:
    """Check an adapter that was trained elsewhere, and store it as a new version."""
    with opened() as context:
        alias = name or context.settings.default_alias
        base = open_base(context.settings)
        began = now_ms()
        stored, origin = import_adapter(
            context, folder, alias, base, actor=actor(), accept_base=accept_base
        )
        notices = list(origin.notices)
        if stored.created_at < began:
            notices.append(f"The same content was stored before, as {stored.label}.")
        printed: ImportedSummary = {
            **_summary(stored),
            "declared_base": origin.base,
            "declared_revision": origin.revision,
            "notice": " ".join(notices),
            "next": f"whet rollout promote {stored.name}",
        }
        emit(printed if as_json else _for_people(printed), as_json)


class ImportedSummary(AdapterSummary):
    """An imported version as the command prints it."""

    declared_base: str | None
    declared_revision: str | None
    notice: str
    next: str


def merge(
    *,
    references: list[str],
    name: str,
    weights: str,
    combination: str,
    density: float | None,
    as_json: bool,
) -> None:
    """Combine versions of one base into a new one: a weighted sum of weights, not of answers."""
    with opened() as context:
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
