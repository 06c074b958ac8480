"""What there is to see: the worker's own counters, the files, and a look at its topics from outside."""

import json
import time
from collections import deque
from dataclasses import dataclass, field

import msgspec

from flagstream.chunk import Record
from flagstream.demo.ledger import Ledger
from flagstream.demo.places import DemoTarget, Stored
from flagstream.kafka.embedded import Follower
from flagstream.operate import metrics

RATE_SECONDS = 6.0
"""Rates are averages over this time: two windows of the file sink, or its rate would jump."""
SHORTEST_SECONDS = 0.5
"""The shortest time over which a rate is measured."""
SAMPLE_SECONDS = 3.0
"""How long a sample stays on the screen, so that it can be read."""
COUNTED = ("sent", "enriched", "dropped", "dead", "exported")
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class Part:
    """A field of a record as its JSON text; ``changed``: the record before or after has none or another."""

    text: str
    changed: bool


@dataclass(frozen=True, slots=True)
class Enriched:
    """One event as it was sent and as it came out."""

    sequence: int
    before: list[Part]
    after: list[Part]


@dataclass(slots=True)
class Sight:
    """Everything a view shows. ``totals`` and ``rates`` (a second) go by the names in ``COUNTED``."""

    seconds: float = 0.0
    totals: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    rates: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0.0))
    stored: list[Stored] = field(default_factory=list)
    noun: str = "file"
    """What the sink makes of a window: a "file", an "object"."""
    sample: Enriched | None = None
    dead: str = ""


class Watch:
    """Looks, at every :meth:`look`. ``place`` is where the sink stores, ``began`` (monotonic seconds) the
    time zero.
    """

    def __init__(
        self, ledger: Ledger, follower: Follower, place: DemoTarget, sink: str, began: float
    ) -> None:
        self.sight = Sight(noun=place.noun)
        self._ledger = ledger
        self._follower = follower
        self._place = place
        self._sink = sink
        self._began = began
        self._known: set[str] = set()
        self._past: deque[tuple[float, dict[str, int]]] = deque()
        self._exported = 0
        self._sample_due = 0.0

    def look(self) -> Sight:
        """Return the sight as it is now; this takes a few milliseconds."""
        now = time.monotonic() - self._began
        self.sight.seconds = now
        self.sight.totals = {"sent": self._ledger.sent, **worker_totals(self._sink)}
        self._measure(now)
        if self.sight.totals["exported"] != self._exported:  # counted when it is there
            self._exported = self.sight.totals["exported"]
            self._find_stored()
        for record in self._follower.take():
            if headers := dict(record.headers() or []):
                self.sight.dead = _dead_letter(headers, record)
            elif now >= self._sample_due and (sample := self._sample(record)):
                self.sight.sample, self._sample_due = sample, now + SAMPLE_SECONDS
        return self.sight

    def _measure(self, now: float) -> None:
        self._past.append((now, self.sight.totals))
        while self._past[0][0] < now - RATE_SECONDS:
            self._past.popleft()
        then, totals = self._past[0]
        if now - then >= SHORTEST_SECONDS:
            self.sight.rates = {
                name: (self.sight.totals[name] - totals[name]) / (now - then) for name in COUNTED
            }

    def _find_stored(self) -> None:
        """Return the objects by their time of writing, as far as one look shows it."""
        new = [name for name in self._place.names() if name not in self._known]
        self.sight.stored += map(self._place.look, new)
        self._known.update(new)

    def _sample(self, record: Record) -> Enriched | None:
        """Return the event beside what was sent, if the worker did more than to add its own metadata."""
        after = record.value() or b""
        sequence = json.loads(after)["sequence"]
        before = self._ledger.recent.get(sequence)
        if before is None:
            return None
        enriched = Enriched(sequence, parts(before, after), parts(after, before))
        return enriched if sum(part.changed for part in enriched.after) > 1 else None


def worker_totals(sink: str) -> dict[str, int]:
    """Return the totals of the worker's metrics. They count what is committed."""
    totals = {"enriched": 0, "dropped": 0, "dead": 0}
    for sample in (sample for metric in metrics.EVENTS.collect() for sample in metric.samples):
        if sample.name.endswith("_total"):
            totals[sample.labels["outcome"]] += int(sample.value)
    exported = metrics.REGISTRY.get_sample_value("flagstream_export_events_total", {"sink": sink})
    return totals | {"exported": int(exported or 0)}


def parts(record: bytes, other: bytes) -> list[Part]:
    """Return the fields of ``record``, marked where ``other`` differs."""
    theirs = _fields(other)
    return [
        Part(f"{json.dumps(name)}:{bytes(text).decode()}", theirs.get(name) != text)
        for name, text in _fields(record).items()
    ]


def _dead_letter(headers: dict[str, bytes], record: Record) -> str:
    reason, error = headers["flagstream-reason"].decode(), headers["flagstream-error"].decode()
    return f"{reason}: {error}  {record.value()!r}"
