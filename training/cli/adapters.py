"""Define `whet adapters …` and `whet export …`."""

from __future__ import annotations

from pathlib import Path

import typer

from training.imports import load
from whet.lazy import runs

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


@adapters.command("list")
@runs("training.commands.adapters:list_all")
def list_all(
    name: str = typer.Option("", "--name", help="Only of this name."),
    removed: bool = typer.Option(False, "--removed", help="Removed versions too."),
    as_json: bool = _Json,
) -> None:
    """Versions, newest first."""


@adapters.command("show")
@runs("training.commands.adapters:show")
def show(reference: str = _Reference, as_json: bool = _Json) -> None:
    """One version with its card."""


@adapters.command("verify")
@runs("training.commands.adapters:verify")
def verify(
    reference: str = typer.Argument("", metavar="[ADAPTER]", help="One version; without it, all."),
    as_json: bool = _Json,
) -> None:
    """Hash the stored files again. Exit code 1 at the first that is not what was stored."""


@adapters.command("import")
@runs("training.commands.adapter_import:import_folder", load)
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


@adapters.command("merge")
@runs("training.commands.adapter_import:merge", load)
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


@adapters.command("remove")
@runs("training.commands.adapters:remove")
def remove(reference: str = _Reference, as_json: bool = _Json) -> None:
    """Withdraw a version. Refused while an alias points to it."""


@export.command("adapter")
@runs("training.commands.export:export_adapter")
def export_adapter(
    reference: str = _Reference,
    to: Path | None = _Folder,
    push_to_hub: str = _Hub,
    public: bool = _Public,
    as_json: bool = _Json,
) -> None:
    """Copy a version in PEFT's format, with its card, to a folder or the Hugging Face hub."""


@export.command("merge")
@runs("training.commands.export_models:export_merged", load)
def export_merged(
    reference: str = _Reference,
    to: Path | None = _Folder,
    push_to_hub: str = _Hub,
    public: bool = _Public,
    as_json: bool = _Json,
) -> None:
    """The base with the version merged into its weights: a whole model that needs no adapter."""


@export.command("gguf")
@runs("training.commands.export_models:export_gguf", load)
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
