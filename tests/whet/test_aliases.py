"""An alias that does not exist is said to be none, whichever command or address is asked."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from tests import builders
from tests.web import console_client
from whet.cli import app
from whet.context import Context
from whet.database import reading, writing
from whet.errors import NotFoundError
from whet.registry import alias_filter, known_aliases, require_alias

NOW = 1_763_000_000_000
COMMANDS = (
    "adapters list --name", "alerts list --alias", "datasets list --alias",
    "datasets retraining --alias", "drift list --alias", "review next --alias",
    "review stats --alias", "rollout show", "train list --alias",
)  # fmt: skip
ADDRESSES = (
    "alerts", "datasets", "drift", "retraining", "review/next", "review/stats", "rollouts", "runs",
)  # fmt: skip


@pytest.fixture
def home(sqlite_context: Context, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A home that knows the alias `bikes` by a version, and `base` by its traffic."""
    monkeypatch.setenv("WHET_HOME", str(sqlite_context.settings.home))
    with writing(sqlite_context.database) as connection:
        builders.add_adapter(connection, NOW, name="bikes")
        builders.add_interaction(connection, NOW, alias="base")
    return sqlite_context


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_the_aliases_that_there_are(home: Context, command: str) -> None:
    refused = CliRunner().invoke(app, [*command.split(), "bike"]).exception
    assert isinstance(refused, NotFoundError), command
    assert "no alias 'bike'" in refused.message and "bikes" in refused.hint
    assert CliRunner().invoke(app, [*command.split(), "bikes", "--json"]).exit_code == 0


def test_an_address_is_not_found(home: Context) -> None:
    client = console_client(home, "operator", clock=lambda: NOW)
    for address in ADDRESSES:
        answer = client.get(f"/api/{address}?alias=bike")
        assert answer.status_code == 404, address
        assert "no alias 'bike'" in answer.json()["error"]["message"], address
        assert client.get(f"/api/{address}?alias=bikes").status_code == 200, address


def test_traffic_alone_makes_an_alias(home: Context) -> None:
    with reading(home.database) as connection:
        assert known_aliases(connection) == ["bikes"]
        assert require_alias(connection, "base") == "base"
        assert alias_filter(connection, "") is None
