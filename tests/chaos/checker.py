"""The independent checker: reads topics, objects and committed offsets, and counts. No code of the worker.

What an object's name and manifest mean is taken from docs/sinks, what a dead letter's headers mean from
docs/events.md, what comes out of an event from tests/chaos/stream.py.
"""

import json
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.chaos.archive import Archive, Claim, Window
from tests.chaos.contents import digest
from tests.chaos.stream import Case, case, number_of
from tests.chaos.topics import Seen, Topics

EXAMPLES = 5
"""Problems of one kind that are reported one by one; of the others only the number is."""


@dataclass(frozen=True)
class Subject:
    """What is examined: the records 0 to `count` - 1 of tests.chaos.stream, and what a fleet made of them."""

    bootstrap_servers: str
    ingest: str
    output: str
    dead_letters: str
    group: str
    """The consumer group of the sink."""
    archive: Archive
    count: int


class Line(NamedTuple):
    """A record of the output topic, as the checker reads it, is kept here."""

    offset: int
    value: bytes


@dataclass(frozen=True)
class Verdict:
    """`problems` is empty when every event is where it belongs, once."""

    problems: dict[str, str]
    """By kind: how many, and some of them."""
    records: int
    exported: int
    untracked: int
    broken: int
    sizes: dict[str, int]
    """Objects of each window, with its index, by topic-partition-start-end."""
    unseen: int
    """Offsets of the output topic that no reader sees: records of aborted transactions, and markers."""


class Problems:
    """What is wrong, by kind."""

    def __init__(self) -> None:
        self._kinds: dict[str, list[str]] = {}

    def add(self, kind: str, text: object) -> None:
        self._kinds.setdefault(kind, []).append(str(text))

    def reported(self) -> dict[str, str]:
        """Return by kind how many problems there are, and some of them."""
        return {kind: f"{len(all_)}: {'; '.join(all_[:EXAMPLES])}" for kind, all_ in self._kinds.items()}


def check(subject: Subject) -> Verdict:
    """Examine what a fleet left, after it has stopped."""
    with closing(Topics(subject.bootstrap_servers)) as topics:
        return _Checker(subject, topics).check()


class _Checker:
    def __init__(self, subject: Subject, topics: Topics) -> None:
        self._subject = subject
        self._topics = topics
        self._problems = Problems()
        self._counts = {
            place: bytearray(subject.count) for place in ("ingest", "output", "objects", "dead letters")
        }
        self._broken: dict[tuple[int, int], tuple[int, Seen]] = {}
        self._unseen = 0
        self._sizes: dict[str, int] = {}

    def check(self) -> Verdict:
        self._read_ingest()
        committed = self._topics.committed(self._subject.group, self._subject.output)
        listing = self._subject.archive.listing(self._subject.output)
        strangers = [
            window.name for no in listing.windows.keys() - committed for window in listing.windows[no]
        ]
        for name in [*listing.foreign, *strangers]:
            self._problems.add("objects: of no window", name)
        for text in listing.unreadable:
            self._problems.add("objects: unreadable", text)
        for partition, (offset, metadata) in committed.items():
            lines = self._read_output(partition)
            end = lines[-1].offset + 1 if lines else 0
            self._unseen += end - len(lines)
            self._read_windows(listing.windows.get(partition, []), lines, end)
            if offset != end or '"end"' in metadata:
                text = f"partition {partition}: {offset} {metadata} is committed, the records end at {end}"
                self._problems.add("committed offset", text)
        self._read_dead_letters()
        return self._verdict()

    def _read_ingest(self) -> None:
        """What was really there; and where the broken records were."""
        for record in self._topics.records(self._subject.ingest):
            if record.key is not None and record.key.startswith(b"broken-"):
                number = int(record.key.removeprefix(b"broken-"))
                self._broken[record.partition, record.offset] = number, record
            else:
                number = number_of(record.value)
            self._count("ingest", number)

    def _read_output(self, partition: int) -> list[Line]:
        lines: list[Line] = []
        last: dict[bytes, int] = {}
        for record in self._topics.records(self._subject.output, partition):
            number = number_of(record.value)
            lines.append(Line(record.offset, record.value or b""))
            if not self._count("output", number):
                continue
            self._compare(number, case(number), record)
            if record.key is not None:
                if last.get(record.key, -1) >= number:
                    self._problems.add("output: order", f"{record.key!r}: {number} after {last[record.key]}")
                last[record.key] = number
        return lines

    def _compare(self, number: int, expected: Case, record: Seen) -> None:
        value = record.value or b""
        if expected.enriched is None:
            self._problems.add("output: not to be exported", f"record {number}: {value!r}")
        elif value != expected.enriched and json.loads(value) != json.loads(expected.enriched):
            self._problems.add("output: content", f"record {number}: {value!r}, not {expected.enriched!r}")
        if (record.key, record.headers) != (expected.key, expected.headers):
            self._problems.add("output: key or headers", f"record {number}: {record.key!r} {record.headers}")

    def _read_windows(self, windows: list[Window], lines: list[Line], end: int) -> None:
        """Ranges tile the partition from 0 (nothing was ever deleted); each window is what the topic is."""
        at = first = 0
        for window in windows:
            id_ = f"{self._subject.output}-{window.partition}-{window.start}-{window.end}"
            self._sizes[id_] = len(window.objects) + (window.says is not None)
            if window.start != at:
                kind = "overlap" if window.start < at else "gap"
                self._problems.add(f"objects: {kind}", f"{window.name} after {at}")
            at = window.end
            while first < len(lines) and lines[first].offset < window.start:
                first += 1
            after = first
            while after < len(lines) and lines[after].offset < window.end:
                after += 1
            self._read_window(window, [line.value for line in lines[first:after]])
            first = after
        if at != end:
            self._problems.add("objects: end", f"windows to {at}, records to {end}; {windows[-1:]}")

    def _read_window(self, window: Window, values: list[bytes]) -> None:
        """The objects that these records have to be in, and no others."""
        expected = self._subject.archive.objects(self._subject.output, window, values)
        if window.says is not None:
            self._compare_manifest(window.name, window.says, self._manifest(window, values))
        if window.objects.keys() != expected.keys():
            text = f"{window.name}: {sorted(window.objects)}, not {sorted(expected)}"
            self._problems.add("objects: other places than the events'", text)
        for name, claim in window.objects.items():
            self._read_object(window, name, claim, expected.get(name, []))

    def _read_object(self, window: Window, name: str, claim: Claim | None, expected: list[bytes]) -> None:
        archive = self._subject.archive
        try:
            content, manifests = archive.read(name)
        except LookupError:
            self._problems.add("objects: missing", f"{name}, which {window.name} lists")
            return
        except ValueError as error:
            self._problems.add("objects: unreadable", f"{name}: {error}")
            return
        for number in content.numbers:
            self._count("objects", number)
        if content.rows != archive.rows(expected):
            text = f"{name}: {len(content.rows)} records, the topic has {len(expected)}"
            self._problems.add("objects: other records than the topic", text)
        found = {
            **self._manifest(window, expected),
            **archive.path(name),
            "records": len(content.rows),
            "digest": content.digest or digest(expected),
        }
        for manifest in manifests:
            self._compare_manifest(name, manifest, found)
        if claim is not None and claim != (found["records"], found["digest"]):
            self._problems.add("objects: index", f"{window.name} says {claim} of {name}, which is {found}")

    def _manifest(self, window: Window, values: list[bytes]) -> dict[str, Any]:
        return {
            "topic": self._subject.output,
            "partition": window.partition,
            "start": window.start,
            "end": window.end,
            "records": len(values),
            "digest": digest(values),
        }

    def _compare_manifest(self, name: str, says: dict[str, Any], found: dict[str, Any]) -> None:
        if {key: says.get(key) for key in found} != found:
            self._problems.add("objects: manifest", f"{name} says {says}, but is {found}")

    def _read_dead_letters(self) -> None:
        for letter in self._topics.records(self._subject.dead_letters):
            headers = {name: value.decode() for name, value in letter.headers}
            try:
                origin = int(headers["flagstream-partition"]), int(headers["flagstream-offset"])
                number, record = self._broken[origin]
            except (KeyError, ValueError):
                self._problems.add("dead letters: of no broken record", headers)
                continue
            self._count("dead letters", number)
            expected = {
                "flagstream-topic": self._subject.ingest,
                "flagstream-timestamp": str(record.timestamp_ms),
                "flagstream-reason": case(number).reason,
                "flagstream-stage": "enrich",
            }
            wrong = {name for name, value in expected.items() if headers.get(name) != value}
            wrong |= {"flagstream-error", "flagstream-version"} - headers.keys()
            if wrong:
                self._problems.add("dead letters: headers", f"record {number}: {wrong} in {headers}")
            kept = letter.headers[: len(record.headers)]
            if (letter.key, letter.value, kept) != (record.key, record.value, record.headers):
                self._problems.add("dead letters: not what came in", f"record {number}")

    def _count(self, place: str, number: int) -> bool:
        counts = self._counts[place]
        if not 0 <= number < len(counts):
            self._problems.add(f"{place}: foreign record", number)
            return False
        counts[number] = min(counts[number] + 1, 255)
        return True

    def _verdict(self) -> Verdict:
        kinds: Counter[str] = Counter()
        for number in range(self._subject.count):
            fate = case(number)
            kept, dead = int(fate.enriched is not None), int(fate.reason is not None)
            kinds["exported" if kept else "broken" if dead else "untracked"] += 1
            for (place, counts), times in zip(self._counts.items(), (1, kept, kept, dead), strict=True):
                if counts[number] != times:
                    what = "LOST" if counts[number] < times else "DOUBLED" if times else "not to be there"
                    self._problems.add(f"{place}: {what}", f"record {number}: {counts[number]} times")
        return Verdict(
            self._problems.reported(),
            self._subject.count,
            kinds["exported"],
            kinds["untracked"],
            kinds["broken"],
            self._sizes,
            self._unseen,
        )
