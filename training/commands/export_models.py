"""`whet export merge` and `gguf`: files that hold the base too."""

from __future__ import annotations

from pathlib import Path

from training.adapters.export import export_gguf as write_gguf
from training.adapters.export import export_gguf_adapter as write_gguf_adapter
from training.adapters.export import export_merged as write_merged
from training.commands.export import place_export, require_place
from training.models.base_choice import open_base
from whet.cli import emit, opened, out
from whet.database import reading
from whet.registry import find_adapter


def export_merged(
    *, reference: str, to: Path | None, push_to_hub: str, public: bool, as_json: bool
) -> None:
    """The base with the version merged into its weights: a whole model that needs no adapter."""
    with opened() as context:
        require_place(to, push_to_hub)
        with reading(context.database) as connection:
            adapter = find_adapter(connection, reference)
        base = open_base(context.settings)
        placed = place_export(
            to,
            push_to_hub,
            adapter,
            lambda folder: write_merged(context, adapter, base, folder),
            public,
        )
        emit({"adapter": adapter.label, **placed}, as_json)


def export_gguf(
    *, reference: str, to: Path, type_name: str, adapter_only: bool, as_json: bool
) -> None:
    """A GGUF file for llama.cpp and Ollama: the merged model with tokenizer and chat template."""
    with opened() as context:
        with reading(context.database) as connection:
            adapter = find_adapter(connection, reference)
        base = open_base(context.settings)
        made = (
            write_gguf_adapter(context, adapter, base, to)
            if adapter_only
            else write_gguf(context, adapter, base, to, type_name)
        )
        shown = {"adapter": adapter.label, **made.as_json()}
        if as_json:
            emit(shown, True)
            return
        emit({key: value for key, value in shown.items() if value and key != "notices"}, False)
        for notice in made.notices:
            out.print(f"• {notice}", markup=False, soft_wrap=True)
