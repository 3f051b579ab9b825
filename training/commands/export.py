"""`whet export …`: take a version out of Whet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from training.adapters.copies import export_adapter as write_copy
from training.adapters.hub import PRIVATE_FILES, check_repository, push_folder
from whet.cli import emit, opened
from whet.database import reading
from whet.errors import InputError
from whet.registry import Adapter, find_adapter


def export_adapter(
    *, reference: str, to: Path | None, push_to_hub: str, public: bool, as_json: bool
) -> None:
    """Copy a version in PEFT's format, with its card, to a folder or the Hugging Face hub."""
    with opened() as context:
        require_place(to, push_to_hub)
        with reading(context.database) as connection:
            adapter = find_adapter(connection, reference)
        placed = place_export(
            to, push_to_hub, adapter, lambda folder: write_copy(context, adapter, folder), public
        )
        emit({"adapter": adapter.label, **placed}, as_json)


def require_place(to: Path | None, repository: str) -> None:
    """Raises InputError when there is nowhere to export to."""
    if repository:
        check_repository(repository)
    elif to is None:
        raise InputError(
            "There is nowhere to export to.",
            hint="Give --to FOLDER, --push-to-hub ORG/NAME, or both.",
        )


def place_export(
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
            message = f"Upload {adapter.label} ({adapter.digest[:8]})"
            placed["repository"] = push_folder(
                folder, repository, is_public=is_public, message=message
            )
            placed["notice"] = (
                f"{', '.join(PRIVATE_FILES)} was not uploaded: it holds held-out conversations."
            )
    return placed
