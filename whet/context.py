"""The things almost every command and process needs, opened once: settings, database, store,
secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from whet.access import installation_secret
from whet.database import migrate, open_database
from whet.settings import Settings
from whet.store import Store


@dataclass(frozen=True)
class Context:
    settings: Settings
    database: Engine
    store: Store

    @property
    def secret(self) -> bytes:
        return installation_secret(self.settings.home)

    @property
    def base_folder(self) -> Path:
        """The base model on this machine.

        A hub id is resolved by `training` and the engine, which have the client for it.
        """
        return Path(self.settings.resolved_base_model)

    def close(self) -> None:
        self.database.dispose()


def open_context(settings: Settings) -> Context:
    """Open and migrate.

    Raises DatabaseError, ConfigurationError or StoreError with a sentence that says what to do.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    database = open_database(
        settings.resolved_database_url, full_durability=settings.log_durability == "full"
    )
    migrate(database)
    return Context(
        settings, database, Store(settings.resolved_store_url, cache=settings.home / "cache")
    )
