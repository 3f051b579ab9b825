"""Versions pushed to the hub, which here is a server on loopback that speaks its protocol."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner, Result

from tests.training.test_store import new_adapter
from training.adapters.model_card import CARD_FILE
from training.models.base_model import BaseModel
from training.store.adapter_publish import publish
from training.store.adapter_store import CONFIG, WEIGHTS
from whet.cli import app
from whet.context import Context
from whet.errors import InputError, StoreError

pytestmark = pytest.mark.seconds
REPOSITORY = "acme/support-lora"


@dataclass
class FakeHub:
    """Repositories and their files; `refuse` is a status that every write is answered with."""

    url: str = ""
    refuse: int = 0
    is_private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)


def handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self, body: object, status: int = 200, **headers: str) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            name = (
                self.path.removeprefix("/api/models/").split("?")[0].removesuffix("/revision/main")
            )
            if name in hub.is_private:
                found = {
                    "id": name,
                    "modelId": name,
                    "private": hub.is_private[name],
                    "sha": "0" * 40,
                }
                self.answer({**found, "tags": [], "siblings": []})
            else:
                self.answer({"error": "not found"}, 404, x_error_code="RepoNotFound")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            hub.tokens.add(self.headers.get("authorization") or "")
            if hub.refuse:
                self.answer({"error": "no"}, hub.refuse)
            elif self.path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}"
                is_private = asked.get("private") or asked.get("visibility") == "private"
                hub.is_private.setdefault(name, bool(is_private))
                self.answer({"url": f"{hub.url}/{name}", "id": name})
            elif "/preupload/" in self.path:
                paths = [file["path"] for file in json.loads(body)["files"]]
                modes = [
                    {"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths
                ]
                self.answer({"files": modes})
            elif "/commit/" in self.path:
                for line in body.decode().split("\n"):
                    entry = json.loads(line) if line else {"key": ""}
                    if entry["key"] == "file":
                        value = entry["value"]
                        hub.files[value["path"]] = base64.b64decode(value["content"])
                    elif entry["key"] == "header":
                        hub.messages.append(entry["value"]["summary"])
                self.answer(
                    {"commitUrl": f"{hub.url}/{REPOSITORY}/commit/1", "commitOid": "1" * 40}
                )
            else:
                self.answer({"errors": [], "warnings": []})

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


def export(context: Context, *options: str) -> Result:
    environment = {"WHET_HOME": str(context.settings.home)}
    return CliRunner().invoke(app, ["export", "adapter", "support@v1", *options], env=environment)


@pytest.fixture
def stored(sqlite_context: Context, base: BaseModel) -> Context:
    publish(sqlite_context, new_adapter(base))
    return sqlite_context


def test_version_is_pushed_without_peoples_conversations(stored: Context, hub: FakeHub) -> None:
    done = export(stored, "--push-to-hub", REPOSITORY, "--json")
    assert done.exit_code == 0, done.exception
    printed = json.loads(done.stdout)
    assert printed["repository"] == f"{hub.url}/{REPOSITORY}" and "folder" not in printed
    assert hub.files.keys() - {".gitattributes"} == {CONFIG, WEIGHTS, CARD_FILE}
    assert "card.json" in printed["notice"]
    assert hub.is_private == {REPOSITORY: True}, "private unless asked otherwise"
    assert hub.messages[0].startswith("Upload support@v1") and hub.tokens == {"Bearer hf_test"}


def test_folder_and_hub_get_the_same_files(
    stored: Context, hub: FakeHub, tmp_path_factory: pytest.TempPathFactory
) -> None:
    to = tmp_path_factory.mktemp("out") / "support"
    done = export(stored, "--push-to-hub", REPOSITORY, "--to", str(to), "--public")
    assert done.exit_code == 0, done.exception
    assert hub.is_private == {REPOSITORY: False}
    assert hub.files[WEIGHTS] == (to / WEIGHTS).read_bytes()


def test_public_repository_is_not_written_unasked(stored: Context, hub: FakeHub) -> None:
    hub.is_private[REPOSITORY] = False
    done = export(stored, "--push-to-hub", REPOSITORY)
    assert isinstance(done.exception, InputError) and "is public" in done.exception.message
    assert not hub.files
    assert export(stored, "--push-to-hub", REPOSITORY, "--public").exit_code == 0


@pytest.mark.parametrize(
    ("status", "sentence"), [(401, "HF_TOKEN"), (403, "HF_TOKEN"), (400, "refused acme")]
)
def test_refusal_of_the_hub_is_a_sentence(
    stored: Context, hub: FakeHub, status: int, sentence: str
) -> None:
    hub.refuse = status
    done = export(stored, "--push-to-hub", REPOSITORY)
    assert isinstance(done.exception, StoreError) and sentence in str(done.exception)


def test_hub_that_cannot_be_reached_is_a_sentence(
    stored: Context, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # discard: nothing listens there
    done = export(stored, "--push-to-hub", REPOSITORY)
    assert isinstance(done.exception, StoreError) and "cannot be reached" in done.exception.message


def test_place_to_export_to_is_required(stored: Context) -> None:
    assert "nowhere" in str(export(stored).exception)
    assert "ORGANISATION/NAME" in str(export(stored, "--push-to-hub", "support").exception)
