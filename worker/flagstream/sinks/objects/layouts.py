"""Layouts: one window as several objects, each named after the events in it (``date=2026-11-22/flag=x/…``).

Every object of a window has the window's range in its name. Because such names differ by content, one listing
cannot show which ranges a sink holds. So each window first stores a small index object,
``_index/topic/partition/start-end.json``, with its count, its digest and the names of the objects to come.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import BinaryIO
from zoneinfo import ZoneInfo

import msgspec

from flagstream.chunk import Partition, Record
from flagstream.events import whole_number
from flagstream.formats.json_text import plain
from flagstream.formats.manifest import difference, manifest_json, parse_manifest
from flagstream.formats.protocol import EncodedObject, Format, ObjectEncoder
from flagstream.outcomes import Reject
from flagstream.sinks.objects.names import EVENT_FIELDS, OFFSET_DIGITS, Field, NameTemplate
from flagstream.sinks.objects.places import NameLimits
from flagstream.window import ContentDigest, Manifest, OffsetRange

ABSENT = "__HIVE_DEFAULT_PARTITION__"
"""The path value for an empty or absent one: Hive's word, which its readers turn into NULL."""
PATH_MEMORY = 64 * 1024
"""Bytes that an object takes while its window is closed; *measured*: Parquet 70 KB, Avro 9, gzip 3. It bounds
how many objects a window can become.
"""
FINISHED_MEMORY = 4 * 1024
"""Bytes that an object takes besides its content after its encoder is gone; *measured*: Parquet 3.2 KB,
others less than 1.
"""
LONGEST_VALUE = 120
"""Most bytes (UTF-8) of a value in a name. A longer one is cut, and a hash makes it unique. Object stores
take names of 1,024 bytes, file systems 255 a folder.
"""
ESCAPED = "".join(map(chr, range(0x20))) + "\"#%'*/:=?\\\x7f{[]^"
"""The characters that Hive's FileUtils.charToEscape names, and Spark's ExternalCatalogUtils after it."""
ESCAPING = "values as Hive escapes them"
"""Part of the fingerprint of layouts with values in their names: former versions escaped more."""
_ESCAPES = {ord(character): f"%{ord(character):02X}" for character in ESCAPED}
Event = Mapping[str, msgspec.Raw]
_decode_event = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class NamedObject:
    """Holds an object on its way to a store."""

    name: str
    content: EncodedObject
    kind: Format


@dataclass(frozen=True, slots=True)
class Index:
    """Writes index objects: JSON, the window's manifest and its objects."""

    name: str = "index"
    extension: str = "json"
    content_type: str = "application/json"
    shape: Sequence[str] = ("index",)

    def begin(self, partition: Partition) -> ObjectEncoder:
        raise NotImplementedError("an index object is written by its layout")

    def compare(self, file: BinaryIO, ours: EncodedObject) -> str | None:
        found = parse_manifest(file.read())
        if found is None:
            return "it is not an index of ours, or cut short"
        return difference(ours.manifest, found)

    def show(self, parts: Sequence[bytes]) -> str:
        return b"".join(parts).decode()


class Layout:
    """The objects that the events of a window belong to. ``zone`` is the time zone of times in names,
    ``place`` says how long names may be.
    """

    def __init__(self, names: NameTemplate, form: Format, zone: str, place: NameLimits) -> None:
        self.names = names
        self.format = form
        self.place = place
        fields = names.event_fields
        self._of_window = [name for name in fields if name.name == "Time"]
        self._of_event = [name for name in fields if name.name != "Time"]
        self._time = _clock(zone)
        # The longest possible values of the window's own fields: whether an event fits must not depend on the
        # first event of its window.
        self._longest = tuple([_times(name.form, zone)[1] for name in self._of_window])
        self._shortest = {
            name: _times(name.form, zone)[0] if name.form else "x" for name in names.event_fields
        }

    def path(self, value: bytes) -> tuple[str, ...]:
        """Return the values of the event fields in the event ``value``. Raises ValueError if it lacks
        them.
        """
        if not self._of_event:
            return ()
        event = _decode_event(value)
        return tuple([self._value(name, event) for name in self._of_event])

    def moment(self, first: bytes) -> tuple[str, ...]:
        """Return the values of the window's own fields; ``first`` is its first event."""
        event = _decode_event(first) if self._of_window else {}
        return tuple([self._value(name, event) for name in self._of_window])

    def name(self, range_: OffsetRange, path: tuple[str, ...], moment: tuple[str, ...]) -> str:
        """Return the name of the object of ``path``."""
        values = {
            **dict(zip(self._of_event, path, strict=True)),
            **dict(zip(self._of_window, moment, strict=True)),
        }
        return self.names.render(range_, values)

    def too_long(self, partition: Partition, path: tuple[str, ...]) -> str | None:
        """Return why no object of ``path`` can be stored (its name would be too long); None if it can be."""
        return self.place.fault(self.name(OffsetRange(partition, 0, 0), path, self._longest))

    def always_too_long(self, partition: Partition) -> str | None:
        """Return why nothing of ``partition`` can be stored (even the shortest name is too long), or None."""
        range_ = OffsetRange(partition, 0, 0)
        shortest = self.names.render(range_, self._shortest)
        index = self.index_name(range_) if self._shortest else ""
        return self.place.fault(shortest) or self.place.fault(index)

    def index_name(self, range_: OffsetRange) -> str:
        """Return the name of the index object of ``range_``."""
        digits = f"0{OFFSET_DIGITS}"
        return f"{self.index_prefix(range_.partition)}{range_.start:{digits}}-{range_.end:{digits}}.json"

    def index_prefix(self, partition: Partition) -> str:
        """Return the prefix of the names of ``partition``'s index objects."""
        return f"{self.names.folder}_index/{partition.topic}/{partition.index}/"

    def _value(self, name: Field, event: Event) -> str:
        if name.form:
            try:
                return self._time(name.form, whole_number(bytes(event["creationDate"])))
            except (KeyError, OverflowError, OSError) as error:
                raise ValueError(f"creationDate gives no time: {error!r}") from error
        raw = event.get(EVENT_FIELDS[name.name])
        if raw is not None and name.member:
            raw = _decode_event(raw).get(name.member) if bytes(raw).startswith(b"{") else None
        return path_safe("" if raw is None else plain(raw))


class LayoutEncoder:
    """Encodes one window of a layout; a :class:`~flagstream.sinks.protocol.WindowEncoder`."""

    def __init__(self, layout: Layout, partition: Partition, prepare: "Prepare") -> None:
        self._layout = layout
        self._partition = partition
        self._prepare = prepare
        self._paths: dict[tuple[str, ...], _PathObject] = {}
        self._first: bytes | None = None
        self._finished = 0
        self.size = 0

    @property
    def memory(self) -> int:
        return self._finished + sum(path.encoder.memory + PATH_MEMORY for path in self._paths.values())

    def add(self, values: Sequence[bytes], records: Sequence[Record]) -> Sequence[Reject]:
        places, rejects = self._places(values)
        for path, indexes in places.items():
            made = self._paths.get(path) or _PathObject(self._layout.format.begin(self._partition))
            own, theirs = [values[i] for i in indexes], [records[i] for i in indexes]
            found = made.add(own, self._prepare(own, theirs), theirs)
            rejects += [replace(reject, index=indexes[reject.index]) for reject in found]
            if made.records:
                self._paths[path] = made
        if self._first is None and len(rejects) < len(values):
            gone = {reject.index for reject in rejects}
            self._first = next(value for i, value in enumerate(values) if i not in gone)
        self.size = sum(path.encoder.size for path in self._paths.values())
        return sorted(rejects, key=lambda reject: reject.index)

    def _places(self, values: Sequence[bytes]) -> tuple[dict[tuple[str, ...], list[int]], list[Reject]]:
        places: dict[tuple[str, ...], list[int]] = {}
        rejects: list[Reject] = []
        for index, value in enumerate(values):
            try:
                path = self._layout.path(value)
                self._layout.moment(value)  # any event may become the window's first one
            except (ValueError, RecursionError) as error:
                rejects.append(Reject(index, "no_path", f"has no place in the layout: {error}"))
                continue
            known = path in places or path in self._paths
            if not known and (fault := self._layout.too_long(self._partition, path)):
                rejects.append(
                    Reject(index, "name_too_long", f"its object's name would be too long: {fault}")
                )
            else:
                places.setdefault(path, []).append(index)
        return places, rejects

    def finish(self, manifest: Manifest) -> Sequence[NamedObject]:
        assert self._first is not None, "a window has at least one exported record"
        moment = self._layout.moment(self._first)
        objects: list[NamedObject] = []
        for path in sorted(self._paths):
            name = self._layout.name(manifest.range, path, moment)
            # Free each encoder after its object is made: thousands at once would block all threads.
            content = self._paths.pop(path).finish(manifest, "/".join((*moment, *path)))
            self._finished += content.size + FINISHED_MEMORY
            objects.append(NamedObject(name, content, self._layout.format))
        return (self._index(manifest, objects), *objects)

    def _index(self, manifest: Manifest, objects: Sequence[NamedObject]) -> NamedObject:
        listed = [
            {
                "name": each.name,
                "records": each.content.manifest.records,
                "digest": each.content.manifest.digest,
            }
            for each in objects
        ]
        # The names count too: another host or build (zone data, settings) would make further objects.
        names = sha256("\n".join(each.name for each in objects).encode()).hexdigest()[:16]
        manifest = replace(manifest, path=f"_index/{names}")
        text = json.dumps(
            {**json.loads(manifest_json(manifest)), "objects": listed}, separators=(",", ":")
        ).encode()
        return NamedObject(self._layout.index_name(manifest.range), EncodedObject((text,), manifest), Index())


Prepare = Callable[[Sequence[bytes], Sequence[Record]], Sequence[bytes]]
"""A function that gives events their ids, if they should have some."""


class _PathObject:
    """The object of one path while its window fills."""

    def __init__(self, encoder: ObjectEncoder) -> None:
        self.encoder = encoder
        self.records = 0
        self._digest = ContentDigest()

    def add(
        self, originals: Sequence[bytes], values: Sequence[bytes], records: Sequence[Record]
    ) -> Sequence[Reject]:
        """Add ``values``, which are ``originals`` with ids. The digest covers the originals."""
        rejects = self.encoder.add(values, records)
        gone = {reject.index for reject in rejects}
        kept = [value for index, value in enumerate(originals) if index not in gone]
        self._digest.update(kept)
        self.records += len(kept)
        return rejects

    def finish(self, window: Manifest, path: str) -> EncodedObject:
        manifest = replace(window, records=self.records, digest=self._digest.hexdigest(), path=path)
        return EncodedObject(self.encoder.finish(manifest), manifest)


def _clock(zone: str) -> Callable[[str, int], str]:
    """Return a strftime in ``zone`` for seconds since 1970. It remembers results: many events share a
    second.
    """
    where = ZoneInfo(zone)

    @lru_cache(maxsize=4096)
    def clock(form: str, seconds: int) -> str:
        return datetime.fromtimestamp(seconds, where).strftime(form)

    return clock


def _times(form: str, zone: str) -> tuple[str, str]:
    """Return the shortest text that ``form`` gives, and a text at least as long as the longest.

    Both come from every day of a year, which has each month with each weekday, at an hour of two digits. A
    zone may have had a longer name or a longer offset (``+005328``) in former times.
    """
    last = datetime(2026, 12, 31, 22, 59, 59, tzinfo=ZoneInfo(zone))
    shown = sorted(((last - timedelta(days=days)).strftime(form) for days in range(365)), key=len)
    return shown[0], shown[-1] + "x" * 4 * form.lower().count("z")


def path_safe(text: str) -> str:
    """Return ``text`` as the name of a folder, as Hive and Spark write it and all readers of their layouts
    understand it: ``ESCAPED`` as %XX, letters of any script as they are.
    """
    if not text:
        return ABSENT
    safe = text.translate(_ESCAPES)
    if safe.startswith("."):
        safe = f"%2E{safe[1:]}"
    if len(safe.encode()) > LONGEST_VALUE:
        safe = f"{_cut(safe, LONGEST_VALUE - 17)}~{sha256(text.encode()).hexdigest()[:16]}"
    return safe


def _cut(safe: str, size: int) -> str:
    """Return the first ``size`` bytes of an escaped value, or up to three fewer: no character and no %XX is
    cut, because readers refuse a whole archive for half of one.
    """
    kept = safe.encode()[:size].decode(errors="ignore")
    return kept if (at := kept.rfind("%", -2)) < 0 else kept[:at]
