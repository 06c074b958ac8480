"""This sink stores events in a SQLite database, exactly once."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Literal

from pydantic import Field

from flagstream.chunk import Partition
from flagstream.errors import ObjectConflict, SinkError, SinkRefused, SinkUnavailable
from flagstream.formats.compression import Plain
from flagstream.formats.jsonl import JsonLinesEncoder
from flagstream.sinks.protocol import Delivery, Preview, Proof
from flagstream.sinks.registry import SinkType
from flagstream.sinks.settings import SinkSettings
from flagstream.window import Manifest, OffsetRange

TABLES = """
CREATE TABLE IF NOT EXISTS windows
  (topic, part, low, high, records, digest, PRIMARY KEY (topic, part, low, high));
CREATE TABLE IF NOT EXISTS events (event)"""
INSERT = "INSERT INTO windows VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
FIND = "SELECT records, digest FROM windows WHERE (topic, part, low, high) = (?, ?, ?, ?)"
LIST = "SELECT low, high FROM windows WHERE (topic, part) = (?, ?) AND high > ? ORDER BY low"


class SqliteSettings(SinkSettings):
    type: Literal["sqlite"] = Field(default="sqlite", description="Rows of a SQLite database.")
    path: Path = Field(description="The database; created when missing, unlike its folder.")


class SqliteSink:
    def __init__(self, settings: SqliteSettings) -> None:
        self.path = settings.path
        self.fingerprint = sha256(f"sqlite {self.path}".encode()).hexdigest()[:16]

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=30)) as connection, connection:
                yield connection
        except sqlite3.OperationalError as error:
            refused = "unable to open" in str(error)
            raise (SinkRefused if refused else SinkUnavailable)(f"{self.path}: {error}") from error

    def open(self) -> None:
        with self.database() as db:
            db.executescript(TABLES)

    def begin(self, partition: Partition, start: int) -> JsonLinesEncoder:
        return JsonLinesEncoder(Plain())

    def deliver(self, manifest: Manifest, payload: Sequence[bytes]) -> Delivery:
        window, rows = manifest.range, b"".join(payload).split(b"\n")[:-1]
        name = (window.partition.topic, window.partition.index, window.start, window.end)
        with self.database() as db:
            if db.execute(INSERT, (*name, manifest.records, manifest.digest)).rowcount:
                db.executemany("INSERT INTO events VALUES (?)", [(row.decode(),) for row in rows])
                return Delivery(created=1, existing=0, bytes=sum(map(len, rows)))
            found = db.execute(FIND, name).fetchone()
        if found != (manifest.records, manifest.digest):
            raise ObjectConflict(f"{self.path}: {window} holds {found}, not {manifest}")
        return Delivery(created=0, existing=1, bytes=0)

    def holdings(self, partition: Partition, start: int) -> Sequence[OffsetRange]:
        with self.database() as db:
            found = db.execute(LIST, (partition.topic, partition.index, start))
            return [OffsetRange(partition, low, high) for low, high in found]

    def probe(self) -> Iterator[Proof]:
        try:
            self.open()
            yield Proof("write", "proved", f"{self.path} has its tables")
        except SinkError as error:
            yield Proof("write", "failed", str(error))

    def preview(self, manifest: Manifest, payload: Sequence[bytes]) -> Preview:
        return Preview((str(manifest.range),), payload[0].partition(b"\n")[0].decode())

    def close(self) -> None:
        """Nothing is held between calls."""


SINK = SinkType(SqliteSettings, SqliteSink, protocol=2)
