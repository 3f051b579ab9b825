"""The base that the settings name."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)

from training.models.base_model import BaseModel
from whet.errors import ConfigurationError
from whet.named_bases import NAMED_BASES, require_fetched
from whet.settings import Settings


def open_base(settings: Settings) -> BaseModel:
    """The base that the settings name: a folder, or a hub id whose files are fetched into the hub
    client's own cache.

    Raises ConfigurationError when it is neither, or a named base that has not been fetched.
    """
    require_fetched(settings.home, settings.base_model)
    name = settings.resolved_base_model
    folder = Path(name)
    if folder.is_dir():
        if settings.base_model in NAMED_BASES:
            return BaseModel(folder.resolve(), settings.base_model)
        return BaseModel(
            folder.resolve(), folder.name if settings.base_model else "the built-in base"
        )
    if folder.is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise ConfigurationError(
            f"The base model {name!r} is not a folder on this machine.",
            hint=(
                "Set WHET_BASE_MODEL to a folder in Hugging Face format, to a hub id such as "
                "org/model, or to one of the names that `whet base list` prints "
                f"({', '.join(NAMED_BASES)})."
            ),
        )
    patterns = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model"]
    try:
        return BaseModel(Path(snapshot_download(name, allow_patterns=patterns)), name)
    except (
        OSError,
        LocalEntryNotFoundError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        ValueError,
    ) as error:
        raise ConfigurationError(
            f"The base model {name!r} could not be fetched: {str(error).splitlines()[0]}",
            hint="Check the name and the network, or set WHET_BASE_MODEL to a local folder.",
        ) from error
