"""The sink of objects, and what a store has to do for it."""

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from hashlib import sha256
from itertools import groupby
from typing import Any, Protocol

from flagstream.chunk import Partition, Record
from flagstream.crashpoints import crash_point
from flagstream.errors import SinkError, SinkRefused, SinkUnavailable
from flagstream.formats.ids import with_ids
from flagstream.formats.protocol import EncodedObject, Format, ObjectEncoder
from flagstream.outcomes import Proof, Reject
from flagstream.sinks.objects.layouts import ESCAPING, Layout, LayoutEncoder, NamedObject
from flagstream.sinks.objects.names import EVENT_FIELDS, OFFSET_DIGITS, NameTemplate
from flagstream.sinks.objects.settings import INDEX_NAME, ObjectSettings
from flagstream.sinks.protocol import Delivery, Preview, WindowEncoder
from flagstream.window import Manifest, OffsetRange, OtherwiseNamed

PARALLEL_OBJECTS = 8
"""Objects of one window that are stored at the same time."""
WIDEST_WINDOW = 1_000_000
"""How many offsets before a position a listing begins, to find a window that reaches beyond the position; ten
times ``max_events`` if that is more. Offsets have gaps, one at each transaction, so a window may span more
offsets than it has events.
"""


class ObjectStore(Protocol):
    """Describes a store of create-only objects. The sink calls it from several threads at once, and every
    call may block.
    """

    place: str
    """The place of the store. It is part of the fingerprint: in another place, stored objects would not
    be found.
    """

    def open(self) -> None:
        """Satisfies :meth:`flagstream.sinks.protocol.Sink.open`."""
        ...

    def create(self, name: str, content: EncodedObject, kind: Format) -> bool:
        """Store an object; it is durable when this returns. Return True if this call stored it, and False if
        it was there already and its manifest says that it is the same.

        Raises ObjectConflict, SinkRefused or SinkUnavailable.
        """
        ...

    def names(self, prefix: str, after: str = "") -> Iterator[str]:
        """Yield the names of complete objects that begin with ``prefix``. Those up to ``after`` may be left
        out.

        Raises SinkRefused or SinkUnavailable.
        """
        ...

    def probe(self) -> Iterator[Proof]:
        """Satisfies :meth:`flagstream.sinks.protocol.Sink.probe`."""
        ...

    def close(self) -> None:
        """Release everything that ``open`` took."""
        ...


class ObjectSink:
    """A :class:`~flagstream.sinks.protocol.Sink` on ``store``. It is exactly once if the store creates each
    object only once.
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
        # Events that are left out do not count for limits, so such a window can be as wide as the topic.
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
        """Check that the store can be used; see the store."""
        self._store.open()

    def limit_names(self, longest: int, part: int) -> None:
        """Limit names to so many bytes, because the store takes no longer ones. Call it before the first
        window.
        """
        self._layout.place = self._layout.place.limited(longest, part)

    def begin(self, partition: Partition, start: int) -> WindowEncoder[Sequence[NamedObject]]:
        def prepare(values: Sequence[bytes], records: Sequence[Record]) -> Sequence[bytes]:
            return with_ids(partition, values, records) if self._event_ids else values

        if self._several:
            return LayoutEncoder(self._layout, partition, prepare)
        return _OneObject(self._names, self._format, partition, prepare)

    def deliver(self, manifest: Manifest, payload: Sequence[NamedObject]) -> Delivery:
        # In a layout the index comes first: a worker that takes the window over then knows which objects may
        # be there.
        first, *others = payload
        outcomes = [self._create(first)]
        if outcomes[0] and others:
            crash_point("export.indexed")
        outcomes += self._create_all(others)
        stored = sum(each.content.size for each, new in zip(payload, outcomes, strict=True) if new)
        return Delivery(sum(outcomes), len(outcomes) - sum(outcomes), stored)

    def _create_all(self, objects: Sequence[NamedObject]) -> Sequence[bool]:
        """Store all objects. None is still under way when this returns or raises."""
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
            parse = NameTemplate(INDEX_NAME, "index", "json").parser(partition)
            found = self._store.names(prefix, f"{prefix}{low:0{OFFSET_DIGITS}}")
            ranges = {parse(f"{partition.topic}/{partition.index}/{name[len(prefix) :]}") for name in found}
        else:
            parse = names.parser(partition)
            listed = self._store.names(names.prefix(partition), names.after(partition, low))
            ranges = {self._named(range_, name) for name in listed if (range_ := parse(name))}
        held = (range_ for range_ in ranges if range_ and range_.end > start)
        # If a range is held under two names, ours counts: a delivery finds it there.
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
    """Encodes a window as one object."""

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
