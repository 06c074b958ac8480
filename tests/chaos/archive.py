"""Windows in a store, found by what the documentation says of names and indexes (docs/sinks)."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from tests.chaos.contents import Content, Contents
from tests.chaos.stores import Store

_RANGE = r"(?P<start>\d{19})-(?P<end>\d{19})"


class Claim(NamedTuple):
    """What an index says of an object."""

    records: int
    digest: str


@dataclass(frozen=True)
class Window:
    """A range of a partition, and the names of the objects that hold it."""

    partition: int
    start: int
    end: int
    name: str
    """Of the object that shows it in a listing."""
    objects: dict[str, Claim | None]
    says: dict[str, Any] | None = None
    """The index's manifest; None where there is no index."""


@dataclass
class Listing:
    """What is in an archive: windows by partition, in order; all other objects; what could not be read."""

    windows: dict[int, list[Window]] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


class Archive(Protocol):
    """The objects that a sink has made of one topic."""

    store: Store

    def listing(self, topic: str) -> Listing: ...

    def objects(self, topic: str, window: Window, values: list[bytes]) -> dict[str, list[bytes]]:
        """Return by name the objects that have to be there for a window of `values`."""
        ...

    def path(self, name: str) -> dict[str, str]:
        """What an object's manifest says beyond range, count and digest."""
        ...

    def read(self, name: str) -> tuple[Content, list[dict[str, Any]]]:
        """An object and all that it, or its store, says of it. Raises LookupError when it is not there,
        ValueError when it is damaged."""
        ...

    def rows(self, values: list[bytes]) -> Any:
        """The rows that these events have to become."""
        ...


class _Stored:
    def __init__(self, store: Store, contents: Contents) -> None:
        self.store = store
        self._contents = contents

    def read(self, name: str) -> tuple[Content, list[dict[str, Any]]]:
        stored = self.store.read(name)
        content = self._contents.read(stored.data)
        beside = [] if stored.manifest is None else [stored.manifest]
        return content, [content.manifest, *beside]

    def rows(self, values: list[bytes]) -> Any:
        return self._contents.rows(values)


class OneObject(_Stored):
    """A window is an object under the default name."""

    def listing(self, topic: str) -> Listing:
        pattern = f"{re.escape(topic)}/(?P<partition>\\d+)/{_RANGE}\\.{re.escape(self._contents.extension)}"
        found = Listing()
        for name in self.store.names():
            if match := re.fullmatch(pattern, name):
                _add(found, match, {name: None})
            else:
                found.foreign.append(name)
        return _ordered(found)

    def objects(self, topic: str, window: Window, values: list[bytes]) -> dict[str, list[bytes]]:
        return {window.name: values}

    def path(self, name: str) -> dict[str, str]:
        return {}


class Hive(_Stored):
    """A window is an object for each day, hour and flag, and an index."""

    TEMPLATE = (
        'date={{ .EventTime "%Y-%m-%d" }}/hour={{ .EventTime "%H" }}/flag={{ .Key }}/'
        "{{ .Topic }}-{{ .Partition }}-{{ .Start }}-{{ .End }}.{{ .Extension }}"
    )

    def listing(self, topic: str) -> Listing:
        pattern = re.compile(f"_index/{re.escape(topic)}/(?P<partition>\\d+)/{_RANGE}\\.json")
        names = self.store.names()
        indexes = [match for match in map(pattern.fullmatch, names) if match]
        found = Listing()
        for match in indexes:
            try:
                _add(found, match, *self._index(match[0]))
            except (ValueError, KeyError, TypeError) as error:
                found.unreadable.append(f"{match[0]}: {error!r}")
        windows = [window for windows in found.windows.values() for window in windows]
        listed = {name for window in windows for name in window.objects}
        found.foreign = sorted(set(names) - {match[0] for match in indexes} - listed)
        return _ordered(found)

    def _index(self, name: str) -> tuple[dict[str, Claim | None], dict[str, Any]]:
        stored = self.store.read(name)
        says = json.loads(stored.data)
        objects: dict[str, Claim | None] = {
            each["name"]: Claim(each["records"], each["digest"]) for each in says.pop("objects")
        }
        return objects, says

    def objects(self, topic: str, window: Window, values: list[bytes]) -> dict[str, list[bytes]]:
        placed: dict[str, list[bytes]] = {}
        file = f"{topic}-{window.partition}-{window.start:019}-{window.end:019}.{self._contents.extension}"
        for value in values:
            event = json.loads(value)
            time = datetime.fromtimestamp(event["creationDate"], UTC)
            name = f"date={time:%Y-%m-%d}/hour={time:%H}/flag={event['key']}/{file}"
            placed.setdefault(name, []).append(value)
        return placed

    def path(self, name: str) -> dict[str, str]:
        return {"path": "/".join(folder.partition("=")[2] for folder in name.split("/")[:-1])}


def _add(
    found: Listing,
    match: re.Match[str],
    objects: dict[str, Claim | None],
    says: dict[str, Any] | None = None,
) -> None:
    partition = int(match["partition"])
    window = Window(partition, int(match["start"]), int(match["end"]), match[0], objects, says)
    found.windows.setdefault(partition, []).append(window)


def _ordered(found: Listing) -> Listing:
    for windows in found.windows.values():
        windows.sort(key=lambda window: (window.start, window.end))
    return found


def copied(store: Store) -> Iterator[tuple[str, bytes]]:
    """Every object, for who wants to look into what went wrong."""
    for name in store.names():
        yield name, store.read(name).data
