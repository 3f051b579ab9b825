"""What `whet datasets show` prints: figures and reasons first, ids on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from feedback.assembly import SPLITS
from feedback.dataset_store import DatasetVersion
from whet.clock import iso
from whet.web.filters import plural

_KEYS = (
    "reviewed_weight", "superseded", "left_out", "left_out_by_reason", "control_token_rows",
)  # fmt: skip


def about_json(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what programs are told of a version's manifest."""
    return {
        **{key: about.get(key) for key in _KEYS},
        "superseded_by_reason": dict(superseded_by_reason(about)),
    }


def superseded_by_reason(about: Mapping[str, Any]) -> Counter[str]:
    """Count the seed rows that reviewed answers replaced, by what was different."""
    return Counter(
        "by another reviewed answer" if entry["conflict"] else "by the same answer, reviewed"
        for entry in about.get("superseded") or ()
    )


def left_out_by_reason(about: Mapping[str, Any]) -> Counter[str]:
    """Count the rows that were left out, by reason."""
    counted = about.get("left_out_by_reason")
    if counted is None:  # a version from before reasons were counted
        counted = Counter(entry["why"] for entry in about.get("left_out") or ())
    return Counter(counted)


def facts_of(
    version: DatasetVersion,
    about: Mapping[str, Any],
    parents: Sequence[str],
    origins: Mapping[str, int],
) -> dict[str, Any]:
    """Return the lines of a version for people."""
    reviewed = f"{len(version.example_ids)}"
    if version.example_ids:
        weight = about.get("reviewed_weight") or 1
        reviewed += f"; in training each weighs {weight:g} times a seed row"
    facts = {
        "version": version.label,
        "rows": ", ".join(f"{version.rows[split]} {split}" for split in SPLITS),
        "origin": ", ".join(f"{count} {origin}" for origin, count in origins.items()),
        "imported from": files_of(version),
        "reviewed": reviewed,
        "replaced": _counts("seed row", superseded_by_reason(about)),
        "left out": _counts("row", left_out_by_reason(about)),
        "parents": ", ".join(parents),
        "built": f"{iso(version.created_at)} by {version.created_by}",
        "note": version.note,
        "digest": version.digest,
        "path": version.path,
    }
    return {name: value for name, value in facts.items() if value}


def files_of(version: DatasetVersion) -> str:
    """Name the files that a version was imported from."""
    files = (version.imported or {}).get("files", [])
    return ", ".join(f"{file['name']} ({plural(file['rows'], 'row')})" for file in files)


def _counts(what: str, counts: Counter[str]) -> str:
    total = plural(counts.total(), what) if counts else f"no {what}"
    width = len(str(max(counts.values(), default=0)))
    lines = [f"\n  {count:>{width}}  {reason}" for reason, count in counts.most_common()]
    return total + "".join(lines)


def ids_of(version: DatasetVersion, about: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return title → rows of everything in a version that has an id."""
    return {
        "reviewed examples": [{"example": example} for example in version.example_ids],
        "replaced seed rows": [
            {
                "row": entry["row"],
                "split": entry["split"],
                "by": entry["by"],
                "answer": "another" if entry["conflict"] else "the same",
            }
            for entry in about.get("superseded") or ()
        ],
        "rows left out": [
            {"row": entry["id"], "why": entry["why"]} for entry in about.get("left_out") or ()
        ],
    }
