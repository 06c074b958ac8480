"""Windows as lines on standard output, in GO Feature Flag's log format: at least once.

Nobody can ask standard output what it holds, so a window that was written may be written again.
"""

import errno
import os
import select
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from flagstream.chunk import Partition, Record
from flagstream.errors import SinkRefused, SinkUnavailable
from flagstream.formats.lines import DEFAULT_TEMPLATE, LineTemplate
from flagstream.outcomes import Proof, Reject
from flagstream.sinks.protocol import Delivery, Preview
from flagstream.sinks.settings import SinkSettings
from flagstream.units import Seconds, wrong
from flagstream.window import Manifest, OffsetRange


def _checked(text: str) -> str:
    try:
        LineTemplate(text)
    except ValueError as error:
        raise wrong(str(error)) from None
    return text


class LogSettings(SinkSettings):
    """Settings of a log sink."""

    type: Literal["log"] = Field(default="log", description="Lines on standard output.")
    template: Annotated[str, AfterValidator(_checked)] = Field(
        default=DEFAULT_TEMPLATE,
        description=(
            "A line, in GO Feature Flag's syntax: Kind, ContextKind, UserKey, CreationDate, Key, Variation, "
            "Value, Default, Version, Source, Metadata (also .Metadata.key), EvaluationContext, "
            "TrackingDetails, FormattedDate; with pipes and functions (docs/compatibility.md)."
        ),
    )
    flush_interval: Seconds = Field(
        default=1.0,
        gt=0,
        description=(
            "Lines appear at most this long after their first event; people watch a log, so it is shorter "
            "than for other sinks."
        ),
    )


@dataclass(frozen=True, slots=True)
class Lines:
    """Holds a window's lines."""

    parts: Sequence[bytes]


class LineEncoder:
    """Encodes one window as lines, in bytes; a :class:`~flagstream.sinks.protocol.WindowEncoder`.

    Costs 6 µs CPU an event with the default template, *measured* with 180-byte events: meant for people, not
    for an archive.
    """

    def __init__(self, template: LineTemplate) -> None:
        self._template = template
        self._parts: list[bytes] = []
        self.size = 0

    @property
    def memory(self) -> int:
        return self.size

    def add(self, values: Sequence[bytes], records: Sequence[Record]) -> Sequence[Reject]:
        lines: list[bytes] = []
        rejects: list[Reject] = []
        for index, value in enumerate(values):
            try:
                lines.append(self._template.render(value))
            except ValueError as error:
                rejects.append(Reject(index, "not_an_event", str(error)))
        part = b"".join(lines)
        self._parts.append(part)
        self.size += len(part)
        return rejects

    def finish(self, manifest: Manifest) -> Lines:
        return Lines(tuple(self._parts))


class LogSink:
    """A :class:`~flagstream.sinks.protocol.Sink` of :class:`Lines`. Windows never mix within one process.

    It writes to ``descriptor`` directly, past Python's buffers, so that the delivery that an error concerns
    sees it.
    """

    unit = "lines"

    def __init__(self, settings: LogSettings, descriptor: int | None = None) -> None:
        self._template = LineTemplate(settings.template)
        self._descriptor = sys.stdout.fileno() if descriptor is None else descriptor
        self._torn = False
        self.fingerprint = sha256(f"log\0{settings.template}\0{settings.events}".encode()).hexdigest()[:16]

    def open(self) -> None:
        try:
            os.fstat(self._descriptor)
        except OSError as error:
            raise SinkRefused(f"standard output is closed: {error.strerror}", denied=True) from error

    def begin(self, partition: Partition, start: int) -> LineEncoder:
        return LineEncoder(self._template)

    def deliver(self, manifest: Manifest, payload: Lines) -> Delivery:
        """Write the window's lines, one event a line. Raises SinkRefused if the reader is gone or the
        descriptor is closed.
        """
        with _OUTPUT:
            try:
                self._write(payload.parts)
            except OSError as error:
                text = f"standard output: {error.strerror}"
                if error.errno in (errno.EPIPE, errno.EBADF):  # nobody judged the events
                    raise SinkRefused(text, denied=True) from error
                raise SinkUnavailable(text) from error
        return Delivery(created=1, existing=0, bytes=sum(map(len, payload.parts)))

    def holdings(self, partition: Partition, start: int) -> Sequence[OffsetRange] | None:
        return None

    def probe(self) -> Iterator[Proof]:
        try:
            self.open()
        except SinkRefused as error:
            yield Proof("write", "failed", str(error))
        else:
            yield Proof("write", "proved", "standard output is open")

    def preview(self, manifest: Manifest, payload: Lines) -> Preview:
        return Preview((), b"".join(payload.parts).decode().rstrip("\n"))

    def close(self) -> None:
        """Nothing is held between calls."""

    def _write(self, parts: Sequence[bytes]) -> None:
        # A failure may have left half a line; the line that now follows must not continue it.
        if self._torn:
            _write_all(self._descriptor, b"\n")
        self._torn = True
        for part in parts:
            _write_all(self._descriptor, part)
        self._torn = False


_OUTPUT = threading.Lock()
"""A delivery holds this lock while it writes: all log sinks of a process share one standard output."""


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            # Another process may have made the shared terminal or pipe non-blocking.
            select.select([], [descriptor], [])
