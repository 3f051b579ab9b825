"""Folders of rows in named parts: what `datasets` saved, and data sets as the hub stores them.

Which files belong to which part is decided by `datasets` itself: from the list in README.md, or
from names such as `data/train-00000-of-00001.parquet`. Rows are read by our own readers, so that a
file in such a folder gives the same rows as alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import datasets
from datasets.data_files import DataFilesDict as _DataFiles
from datasets.data_files import EmptyDatasetError, get_data_patterns, sanitize_patterns
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard

from training.data.columns import listed
from training.data.tables import plain
from whet.errors import InputError
from whet.json_types import Json, JsonObject

TRAIN, VALIDATION, TEST = "train", "validation", "test"
_OTHER_NAMES = {
    "training": TRAIN, "valid": VALIDATION, "val": VALIDATION, "dev": VALIDATION, "eval": TEST,
}  # fmt: skip
# Files of rows; others in such a folder are cards, records of what was done, and pictures.
ENDINGS = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
_NO_ROWS = ("manifest.json", "dataset_infos.json", "dataset_dict.json", "state.json")

# In a folder: data sets of the hub have some hundred shards; a home folder, or one of programs, is
# none, and `datasets` looks at each of its files.
_MOST_FILES = 10_000

Parts = Mapping[str, list[Path]]  # name → its files, or the one folder that `datasets` saved


def parts_of(folder: Path) -> dict[str, list[Path]]:
    """Return the parts of a folder: train, validation and test under these names, others as named.

    With several subsets and no default one, parts are named `SUBSET/PART`. A folder that is one
    saved data set has the part "". Raises InputError when it holds no rows.
    """
    if (folder / "state.json").is_file():
        return {"": [folder]}
    saved = sorted(child for child in folder.iterdir() if (child / "state.json").is_file())
    found = {child.name: [child] for child in saved} or _hub_parts(folder)
    if not found:
        raise InputError(
            f"{folder} is a folder without files of rows.",
            hint=f"Name a file, or a folder with files that end with {', '.join(ENDINGS)}.",
        )
    named = {usual_name(name): files for name, files in found.items()}
    return named if len(named) == len(found) else found


def usual_name(part: str) -> str:
    """Return the name of a part as Whet calls it: `valid`, `val` and `dev` are `validation`."""
    return _OTHER_NAMES.get(part.casefold(), part)


def _hub_parts(folder: Path) -> dict[str, list[Path]]:
    _require_few_files(folder)
    try:
        subsets = _subsets(folder)
    except (ValueError, OSError) as error:
        raise InputError(
            f"README.md in {folder} does not say which files hold the rows: {error}.",
            hint="Correct the list under 'configs', or name a file.",
        ) from error
    if subsets:
        resolved = {name: _resolved(folder, patterns) for name, patterns in subsets.items()}
        if not any(resolved.values()):
            raise InputError(
                f"Files that {folder}/README.md names are not in the folder.",
                hint="Download the whole folder, or name a file.",
            )
        if len(resolved) == 1:
            return next(iter(resolved.values()))
        return {
            f"{name}/{part}": of for name, parts in resolved.items() for part, of in parts.items()
        }
    try:
        patterns = get_data_patterns(str(folder))
    except EmptyDatasetError:
        return {}
    found = _resolved(folder, patterns)
    if list(patterns) == ["train"] and "**" in patterns["train"] and len(found.get(TRAIN, [])) > 1:
        names = [str(path.relative_to(folder)) for path in found[TRAIN]]
        raise InputError(
            f"{folder} is a folder of {len(names)} files of rows: {listed(names)}.",
            hint=f"Name one, such as {folder / names[0]}, or put them together: "
            f"`whet data mix {folder}/* --into all.jsonl`.",
        )
    return found


def _require_few_files(folder: Path) -> None:
    """Raises InputError for a folder that `datasets` would look through for minutes."""
    seen = 0
    for _, folders, files in os.walk(folder):
        seen += len(folders) + len(files)
        if seen > _MOST_FILES:
            raise InputError(
                f"{folder} holds more than {_MOST_FILES:,} files, so it is no data set.",
                hint="Name a file, or the folder of the data set itself.",
            )


def _subsets(folder: Path) -> JsonObject:
    """Return subset → patterns of its files, from the card; the default one alone if any is."""
    card = folder / "README.md"
    if not card.is_file():
        return {}
    configs = MetadataConfigs.from_dataset_card_data(DatasetCard.load(card).data)
    with_files = {
        name: config["data_files"] for name, config in configs.items() if "data_files" in config
    }
    default = configs.get_default_config_name()
    return {default: with_files[default]} if default in with_files else with_files


def _resolved(folder: Path, patterns: Json) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    try:
        files = _DataFiles.from_patterns(sanitize_patterns(patterns), base_path=str(folder))
    except FileNotFoundError:  # a name that is no pattern
        return found
    for part, names in files.items():
        paths = [Path(name) for name in names if Path(name).suffix.lower() in ENDINGS]
        paths = [path for path in paths if not _is_record(path) and path.stat().st_size]
        if paths:
            found[str(part)] = sorted(paths)
    return found


def _is_record(path: Path) -> bool:
    return path.name in _NO_ROWS or path.name.endswith(".record.json")


def chosen_part(folder: Path, part: str, parts: Parts) -> str:
    """Return the name of the part to read: the one asked for, the only one, or train."""
    if part:
        wanted = [name for name in parts if part in (name, name.split("/")[0])]
        wanted = [name for name in parts if name == usual_name(part)] or wanted
        wanted = [name for name in wanted if name.endswith(f"/{TRAIN}")] or wanted
    else:
        wanted = [TRAIN] if TRAIN in parts else list(parts)
    if len(wanted) == 1:
        return wanted[0]
    raise InputError(
        f"{folder} holds {len(parts)} parts: {', '.join(sorted(parts))}.",
        hint=f"Name one of them, such as {folder / sorted(parts)[0]}.",
    )


def saved_rows(folder: Path) -> Iterator[tuple[int, object]]:
    """Yield (number, row) of a folder that `save_to_disk` wrote. Raises InputError."""
    try:
        table = datasets.load_from_disk(str(folder))
        yield from ((number, plain(row)) for number, row in enumerate(table, start=1))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} cannot be read as a saved dataset: {error}",
            hint="Save it again with save_to_disk, or as Parquet.",
        ) from error


def chained(
    files: list[Path], read: Callable[[Path], Iterator[tuple[int, object]]]
) -> Iterator[tuple[int, object]]:
    """Yield the rows of several files, numbered through."""
    number = 0
    for path in files:
        for _, value in read(path):
            number += 1
            yield number, value
