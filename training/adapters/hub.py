"""Uploads a folder to a model repository on the Hugging Face hub, by the hub's own client.

`HF_ENDPOINT` names another hub, `HF_TOKEN` or `hf auth login` says who uploads.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import httpx2  # which the hub's client speaks with
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from whet.errors import InputError, StoreError

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*")
_SHOWN = 300  # characters of the hub's own words
# A version's card.json holds held-out conversations as token ids, by which engines are proved.
PRIVATE_FILES = ("card.json",)


def check_repository(name: str) -> None:
    """Raises InputError."""
    if not _REPOSITORY.fullmatch(name):
        raise InputError(
            f"{name!r} is not a repository of the hub.",
            hint="Name it as ORGANISATION/NAME, such as acme/support-lora.",
        )


def push_folder(folder: Path, repository: str, *, is_public: bool, message: str) -> str:
    """Uploads the folder in one commit and returns the repository's address.

    A repository that does not exist is made, private unless `is_public`. Left out are files that
    hold people's conversations. Raises InputError for a public repository that nobody asked for,
    StoreError when the hub refuses or cannot be reached.
    """
    check_repository(repository)
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    try:
        _require_visibility(api, repository, is_public=is_public)
        url = api.create_repo(repository, private=not is_public, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=str(folder),
            ignore_patterns=list(PRIVATE_FILES),
            commit_message=message,
        )
    except LocalTokenNotFoundError as error:
        raise StoreError("Nobody is logged in to the hub here.", hint=_LOG_IN) from error
    except HfHubHTTPError as error:
        raise _refusal(error, repository) from error
    except (OfflineModeIsEnabled, httpx2.HTTPError, OSError) as error:
        raise StoreError(
            f"The hub at {api.endpoint} cannot be reached: {_one_line(error)}",
            hint="Check the network, HF_ENDPOINT and HF_HUB_OFFLINE; or export to a folder (--to).",
        ) from error
    return str(url)


_LOG_IN = "Set HF_TOKEN to a token that may write, or run `hf auth login`."


def _require_visibility(api: HfApi, repository: str, *, is_public: bool) -> None:
    """Raises InputError when the repository exists and everybody can read it."""
    try:
        found = api.repo_info(repository)
    except RepositoryNotFoundError:
        return
    if not is_public and not found.private:
        raise InputError(
            f"{repository} exists and is public: everybody could read what was learned.",
            hint="Give --public if that is meant, or name another repository.",
        )


def _refusal(error: HfHubHTTPError, repository: str) -> StoreError:
    status = error.response.status_code if error.response is not None else 0
    if status in (401, 403):
        return StoreError(
            f"The hub does not let you write to {repository} ({status}).", hint=_LOG_IN
        )
    return StoreError(
        f"The hub refused {repository} ({status or 'no status'}): {_one_line(error)}",
        hint="Try again later, or export to a folder (--to) and upload that.",
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:_SHOWN]
