"""The contract of sinks holds for the SQLite sink."""

import sqlite3
from pathlib import Path

import pytest
from sqlite_sink import INSERT, SqliteSettings, SqliteSink

from flagstream.testing import CreateOnlyContract, Window


class TestSqlite(CreateOnlyContract):
    sink_class = SqliteSink
    unacceptable = (b"text", b"[]", b"{\n}")

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path

    def settings(self) -> SqliteSettings:
        return SqliteSettings(path=self.tmp_path / "events.db")

    def settings_of_another_shape(self) -> SqliteSettings:
        return SqliteSettings(path=self.tmp_path / "other.db")

    def refusing_settings(self) -> SqliteSettings:
        return SqliteSettings(path=self.tmp_path / "missing" / "events.db")

    def read_back(self) -> list[bytes]:
        with self.make_sink().database() as db:
            return [event.encode() for (event,) in db.execute("SELECT event FROM events")]

    def die_half_way(self, window: Window) -> None:
        connection = sqlite3.connect(self.settings().path)
        connection.execute(INSERT, ("evaluations", 3, 0, 1000, 1000, "digest"))
        connection.close()  # without a commit
