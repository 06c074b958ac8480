"""Sinks of objects: one or several objects a window, created once under names made of its range.

What differs between file systems and object stores is an :class:`ObjectStore`; names, formats, layouts, ids
and what "already there" means are the same for all of them, and here.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from hashlib import sha256
from itertools import groupby
from typing import Annotated, Any, ClassVar, Literal, Protocol
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from flagstream.chunk import Partition, Record
from flagstream.crashpoints import crash_point
from flagstream.errors import SinkError, SinkRefused, SinkUnavailable
from flagstream.formats.compression import Compression, TextCompression
from flagstream.formats.csv import DEFAULT_TEMPLATE, CsvFormat
from flagstream.formats.ids import with_ids
from flagstream.formats.jsonl import JsonLinesFormat
from flagstream.formats.protocol import EncodedObject, Format, ObjectEncoder
from flagstream.sinks.layouts import ESCAPING, Layout, LayoutEncoder, NamedObject
from flagstream.sinks.names import DEFAULT_NAME, EVENT_FIELDS, OFFSET_DIGITS, NameTemplate, ObjectName
from flagstream.sinks.overlap import overlap
from flagstream.sinks.places import NameLimits
from flagstream.sinks.protocol import Delivery, Preview, Proof, Reject, WindowEncoder
from flagstream.sinks.settings import SinkSettings
from flagstream.units import Count, wrong
from flagstream.window import Manifest, OffsetRange, OtherwiseNamed

PARALLEL_OBJECTS = 8
"""Objects of one window that are stored at a time."""
WIDEST_WINDOW = 1_000_000
"""Offsets, and ten times ``max_events``: how far before a position a listing looks for a window that reaches
beyond it. Offsets have gaps, at each transaction one, so a window may span more of them than it has events.
"""

LAST_PARTITION = 2**31 - 1
"""The largest number that Kafka gives a partition: none has a longer name."""

_INDEX = "{{ .Topic }}/{{ .Partition }}/{{ .Start }}-{{ .End }}.json"

FormatName = Literal["jsonl", "csv", "avro", "parquet"]
CompressionName = Literal["auto", "none", "gzip", "zstd", "snappy", "lz4"]

_COMPRESSIONS: dict[FormatName, tuple[CompressionName, ...]] = {
    "jsonl": ("gzip", "none", "zstd"),
    "csv": ("gzip", "none", "zstd"),
    "avro": ("gzip", "none", "zstd", "snappy"),
    "parquet": ("snappy", "none", "gzip", "zstd", "lz4"),
}
"""Those that each format has, its default first."""


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise wrong(f'"{name}" is no time zone; write UTC, Europe/Berlin and so on') from error
    return name


def _csv(text: str) -> str:
    try:
        CsvFormat(text, Compression("none", 1))
    except ValueError as error:
        raise wrong(str(error)) from None
    return text


class ObjectSettings(SinkSettings):
    """Settings of a sink of objects."""

    keeps_manifests: ClassVar[bool] = False
    """The store keeps an object's manifest beside it and compares by that, so that it need not be inside."""

    name: ObjectName = Field(
        default=DEFAULT_NAME,
        description=(
            "Template of an object's name. Must contain Topic, Partition, Start and End; further Extension, "
            'Format, {{ .Time "%Y-%m-%d" }} (the first event\'s), and fields of events, by which a window '
            'becomes several objects: {{ .EventTime "%H" }}, Key, ContextKind, Source and so on.'
        ),
    )
    format: FormatName = Field(
        default="jsonl", description="JSON lines, CSV, Avro or Parquet (needs the extra parquet)."
    )
    compression: CompressionName = Field(
        default="auto",
        description=(
            'How objects are compressed. "auto" is gzip, for Parquet snappy. JSON lines and CSV: none, gzip, '
            "zstd; Avro these and snappy; Parquet these, snappy and lz4."
        ),
    )
    compression_level: Count = Field(
        default=3,
        ge=1,
        le=19,
        description=(
            "From fast to small; gzip knows 1 to 9. With gzip 3 takes no more time than 1 and stores a tenth "
            "less; 6 stores a tenth to a fifth less again, in two to three times the time. JSON lines and "
            "CSV only."
        ),
    )
    csv_template: Annotated[str, AfterValidator(_csv)] = Field(
        default=DEFAULT_TEMPLATE,
        description=(
            "A row, in GO Feature Flag's syntax. The default has no place for tracking events, which then "
            'become dead letters; leave them out with events = "feature".'
        ),
    )
    event_ids: bool = Field(
        default=False,
        description=(
            "Give each event an id, topic-partition-offset of the output topic: the same on every try. An "
            "event with an id of its own keeps it."
        ),
    )
    time_zone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC", description="Zone of the times in names."
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        yield from super().problems()
        known = _COMPRESSIONS[self.format]
        if self.compression not in ("auto", *known):
            yield (
                "compression",
                f'"{self.compression}" is not known to {self.format}; write {", ".join(known)}',
            )
        if self.compression in ("auto", "gzip") and self.compression_level > 9:
            yield "compression_level", "gzip has levels 1 to 9"
        default_level = type(self).model_fields["compression_level"].default
        if self.format in ("avro", "parquet") and self.compression_level != default_level:
            yield "compression_level", f'is not used by format = "{self.format}"; leave it out'
        elif self.compression == "none" and self.compression_level != default_level:
            yield "compression_level", 'is not used with compression = "none"; leave it out'
        if self.format != "csv" and self.csv_template != DEFAULT_TEMPLATE:
            yield (
                "csv_template",
                f'is not used by format = "{self.format}"; write format = "csv", or leave it out',
            )
        if self.format == "parquet":
            try:
                self.make_format()
            except ImportError:
                yield "format", "parquet needs pyarrow: install flagstream[parquet]"

    def place(self) -> NameLimits:
        """Where the objects are to be, and how long names may be there; by the configuration alone."""
        return NameLimits()

    def where(self) -> str:
        """What people write in front of a name to find the object, the prefix included."""
        return ""

    def templates(self) -> Sequence[NameTemplate]:
        """Those of all names that this sink gives. Raises ImportError where a format's library is missing."""
        form = self.make_format()
        names = NameTemplate(self.name, form.name, form.extension)
        index = NameTemplate(f"{names.folder}_index/{_INDEX}", "index", "json")
        return (names, index) if names.event_fields else (names,)

    def shares_names(self, other: "ObjectSettings", topic: str) -> bool:
        """Whether an object of this sink can have the name of one of ``other``, in the same place."""
        here, there = self.place(), other.place()
        if not here.store or here.store != there.store:
            return False
        try:
            return overlap((here.root, self.templates()), (there.root, other.templates()), topic)
        except ImportError:
            return False  # another problem, told elsewhere

    def takes_own_index(self, topic: str) -> bool:
        """Whether an event with the right value in it would give an object the name of its window's index."""
        try:
            names, *index = self.templates()
        except ImportError:
            return False  # another problem, told elsewhere
        return overlap(("", (names,)), ("", index), topic)

    def name_problem(self, topic: str) -> str | None:
        """Why no object of ``topic`` could ever be stored: its name would be too long. None if it can be."""
        try:
            form = self.make_format()
        except ImportError:
            return None  # another problem, told elsewhere
        names = NameTemplate(self.name, form.name, form.extension)
        layout = Layout(names, form, self.time_zone, self.place())
        return layout.always_too_long(Partition(topic, LAST_PARTITION))

    def make_format(self) -> Format:
        """The format. Raises ImportError where its library is missing."""
        kind: Any = _COMPRESSIONS[self.format][0] if self.compression == "auto" else self.compression
        match self.format:
            case "jsonl":
                return JsonLinesFormat(self._text_compression(kind))
            case "csv":
                return CsvFormat(self.csv_template, self._text_compression(kind))
            case "avro":
                from flagstream.formats.avro import AvroFormat

                return AvroFormat("deflate" if kind == "gzip" else kind, self.event_ids)
            case "parquet":
                from flagstream.formats.parquet import ParquetFormat

                return ParquetFormat(self.events, kind, self.event_ids)

    def _text_compression(self, kind: TextCompression) -> Compression:
        return Compression(kind, self.compression_level, described=not self.keeps_manifests)


class ObjectStore(Protocol):
    """A place for create-only objects. Calls block, and come from several threads at once."""

    place: str
    """Which place this is; part of the fingerprint: elsewhere, what is already there would not be found."""

    def open(self) -> None:
        """As :meth:`flagstream.sinks.protocol.Sink.open`."""
        ...

    def create(self, name: str, content: EncodedObject, kind: Format) -> bool:
        """Store an object that is durable when this returns. True: by this call; False: it was there already
        and says of itself that it is the same.

        Raises ObjectConflict, SinkRefused or SinkUnavailable.
        """
        ...

    def names(self, prefix: str, after: str = "") -> Iterator[str]:
        """The names of whole objects that begin with ``prefix``; those up to ``after`` may be left out.

        Raises SinkRefused or SinkUnavailable.
        """
        ...

    def probe(self) -> Iterator[Proof]:
        """As :meth:`flagstream.sinks.protocol.Sink.probe`."""
        ...

    def close(self) -> None:
        """Release what ``open`` took."""
        ...


class ObjectSink:
    """A :class:`~flagstream.sinks.protocol.Sink` on ``store``. Exactly once, as far as the store creates
    once.
    """

    unit = "objects"

    def __init__(self, store: ObjectStore, settings: ObjectSettings) -> None:
        self._store = store
        self._format = settings.make_format()
        self._names = NameTemplate(settings.name, self._format.name, self._format.extension)
        self._layout = Layout(self._names, self._format, settings.time_zone, settings.place())
        self._several = bool(self._names.event_fields)
        self._event_ids = settings.event_ids
        self._where = settings.where()
        # Events that are left out count for no limit: such a window can be as wide as the topic.
        filtered = settings.events != "both"
        self._reach = 1 << 63 if filtered else max(WIDEST_WINDOW, 10 * settings.max_events)
        self._condemns = settings.on_refused == "dead_letter"
        self._threads = ThreadPoolExecutor(PARALLEL_OBJECTS, thread_name_prefix="objects")
        shape = (
            store.place,
            settings.name,
            *self._format.shape,
            settings.events,
            str(settings.event_ids),
            settings.time_zone if self._several else "",
        )
        if any(field.name in EVENT_FIELDS for field in self._names.event_fields):
            shape = (*shape, ESCAPING)
        self.fingerprint = sha256("\0".join(shape).encode()).hexdigest()[:16]

    def open(self) -> None:
        """Proves that the store can be used; see the store."""
        self._store.open()

    def limit_names(self, longest: int, part: int) -> None:
        """The store turned out to take names of so many bytes only; before the first window."""
        self._layout.place = self._layout.place.limited(longest, part)

    def begin(self, partition: Partition, start: int) -> WindowEncoder[Sequence[NamedObject]]:
        def prepare(values: Sequence[bytes], records: Sequence[Record]) -> Sequence[bytes]:
            return with_ids(partition, values, records) if self._event_ids else values

        if self._several:
            return LayoutEncoder(self._layout, partition, prepare)
        return _OneObject(self._names, self._format, partition, prepare)

    def deliver(self, manifest: Manifest, payload: Sequence[NamedObject]) -> Delivery:
        # In a layout the index comes first: who takes the window over then knows what may be there of it.
        first, *others = payload
        outcomes = [self._create(first)]
        if outcomes[0] and others:
            crash_point("export.indexed")
        outcomes += self._create_all(others)
        stored = sum(each.content.size for each, new in zip(payload, outcomes, strict=True) if new)
        return Delivery(sum(outcomes), len(outcomes) - sum(outcomes), stored)

    def _create_all(self, objects: Sequence[NamedObject]) -> Sequence[bool]:
        """None is still under way when this returns or raises."""
        futures = [self._threads.submit(self._create, each) for each in objects]
        _, late = wait(futures, return_when=FIRST_EXCEPTION)
        for future in late:
            future.cancel()
        wait(late)
        stored = any(not each.cancelled() and each.exception() is None for each in futures)
        refused = next((e for each in futures if not each.cancelled() and (e := each.exception())), None)
        if self._condemns and stored and isinstance(refused, SinkRefused):
            raise SinkUnavailable(
                f"{refused}; part of its window is stored, so it cannot become dead letters"
            )
        return [future.result() for future in sorted(futures, key=Future.cancelled)]

    def _create(self, each: NamedObject) -> bool:
        return self._store.create(each.name, each.content, each.kind)

    def holdings(self, partition: Partition, start: int) -> Sequence[OffsetRange]:
        names, low = self._names, max(0, start - self._reach)
        if self._several:
            prefix = self._layout.index_prefix(partition)
            parse = NameTemplate(_INDEX, "index", "json").parser(partition)
            found = self._store.names(prefix, f"{prefix}{low:0{OFFSET_DIGITS}}")
            ranges = {parse(f"{partition.topic}/{partition.index}/{name[len(prefix) :]}") for name in found}
        else:
            parse = names.parser(partition)
            listed = self._store.names(names.prefix(partition), names.after(partition, low))
            ranges = {self._named(range_, name) for name in listed if (range_ := parse(name))}
        held = (range_ for range_ in ranges if range_ and range_.end > start)
        # Of one that is held under both names, ours counts: it is found there.
        ours = sorted(held, key=lambda range_: (range_.start, range_.end, isinstance(range_, OtherwiseNamed)))
        return [next(same) for _, same in groupby(ours, lambda range_: (range_.start, range_.end))]

    def _named(self, range_: OffsetRange, name: str) -> OffsetRange:
        if self._names.render(range_) == name:
            return range_
        return OtherwiseNamed(range_.partition, range_.start, range_.end, name)

    def probe(self) -> Iterator[Proof]:
        try:
            yield from self._store.probe()
        except SinkError as error:
            yield Proof("open", "failed", str(error))

    def preview(self, manifest: Manifest, payload: Sequence[NamedObject]) -> Preview:
        last = payload[-1]
        return Preview([self._where + each.name for each in payload], last.kind.show(last.content.parts))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._store.close()


class _OneObject:
    """A window as one object."""

    def __init__(self, names: NameTemplate, form: Format, partition: Partition, prepare: Any) -> None:
        self._names = names
        self._format = form
        self._prepare = prepare
        self._encoder: ObjectEncoder = form.begin(partition)

    @property
    def size(self) -> int:
        return self._encoder.size

    @property
    def memory(self) -> int:
        return self._encoder.memory

    def add(self, values: Sequence[bytes], records: Sequence[Record]) -> Sequence[Reject]:
        return self._encoder.add(self._prepare(values, records), records)

    def finish(self, manifest: Manifest) -> Sequence[NamedObject]:
        content = EncodedObject(self._encoder.finish(manifest), manifest)
        return (NamedObject(self._names.render(manifest.range), content, self._format),)
