"""The independent checker: reads topics, files and committed offsets, and counts. No code of the worker.

What a file's name and header mean is taken from docs/sinks/file.md, what a dead letter's headers mean from
docs/events.md, what comes out of an event from tests/chaos/stream.py.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.chaos.archive import ArchivedFile, listing
from tests.chaos.stream import Case, case
from tests.chaos.topics import Seen, Topics

EXAMPLES = 5
"""Problems of one kind that are told one by one; of the others only the number."""

_NUMBER = re.compile(rb'"userKey":"u-(\d+)"')


@dataclass(frozen=True)
class Subject:
    """What is examined: the records 0 to `count` - 1 of tests.chaos.stream, and what a fleet made of them."""

    bootstrap_servers: str
    ingest: str
    output: str
    dead_letters: str
    group: str
    """The consumer group of the file sink."""
    archive: Path
    count: int


class Line(NamedTuple):
    """A record of the output topic."""

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
    files: int
    unseen: int
    """Offsets of the output topic that no reader sees: records of aborted transactions, and markers."""


class Problems:
    """What is wrong, by kind."""

    def __init__(self) -> None:
        self._kinds: dict[str, list[str]] = {}

    def add(self, kind: str, text: object) -> None:
        self._kinds.setdefault(kind, []).append(str(text))

    def told(self) -> dict[str, str]:
        """By kind: how many, and some of them."""
        return {kind: f"{len(all_)}: {'; '.join(all_[:EXAMPLES])}" for kind, all_ in self._kinds.items()}


def check(subject: Subject) -> Verdict:
    """Examine what a fleet left behind, after it has stopped."""
    return _Checker(subject).check()


class _Checker:
    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._topics = Topics(subject.bootstrap_servers)
        self._problems = Problems()
        self._counts = {
            place: bytearray(subject.count) for place in ("ingest", "output", "files", "dead letters")
        }
        self._broken: dict[tuple[int, int], tuple[int, Seen]] = {}
        self._unseen = 0
        self._files = 0

    def check(self) -> Verdict:
        self._read_ingest()
        committed = self._topics.committed(self._subject.group, self._subject.output)
        folder = self._subject.archive / self._subject.output
        for foreign in {path.name for path in folder.iterdir()} - {str(number) for number in committed}:
            self._problems.add("files of no partition", foreign)
        for partition, (offset, metadata) in committed.items():
            lines = self._read_output(partition)
            end = lines[-1].offset + 1 if lines else 0
            self._unseen += end - len(lines)
            self._read_files(partition, lines, end)
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
                number = _number(record.value)
            self._count("ingest", number)

    def _read_output(self, partition: int) -> list[Line]:
        lines: list[Line] = []
        last: dict[bytes, int] = {}
        for record in self._topics.records(self._subject.output, partition):
            number = _number(record.value)
            lines.append(Line(record.offset, record.value or b""))
            if not self._count("output", number):
                continue
            self._compare(number, case(number), record)
            if record.key is not None:
                if last.get(record.key, -1) >= number:
                    self._problems.add("output: order", f"{record.key!r}: {number} behind {last[record.key]}")
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

    def _read_files(self, partition: int, lines: list[Line], end: int) -> None:
        """Ranges tile the partition from 0 (nothing was ever deleted); each file is what the topic is."""
        at = first = 0
        for file in listing(self._subject.archive / self._subject.output / str(partition)):
            self._files += 1
            place = f"{partition}/{file.path.name}"
            if file.start != at:
                self._problems.add(
                    "files: overlap" if file.start < at else "files: gap", f"{place} after {at}"
                )
            at = file.end
            while first < len(lines) and lines[first].offset < file.start:
                first += 1
            behind = first
            while behind < len(lines) and lines[behind].offset < file.end:
                behind += 1
            self._read_file(partition, file, [line.value for line in lines[first:behind]])
            first = behind
        if at != end:
            self._problems.add("files: end", f"partition {partition}: files to {at}, records to {end}")

    def _read_file(self, partition: int, file: ArchivedFile, expected: list[bytes]) -> None:
        place = f"{partition}/{file.path.name}"
        try:
            content = file.read()
        except ValueError as error:
            self._problems.add("files: unreadable", f"{place}: {error}")
            return
        for line in content.lines:
            self._count("files", _number(line))
        if content.lines != expected:
            text = f"{place}: {len(content.lines)} records, the topic has {len(expected)}"
            self._problems.add("files: other records than the topic", text)
        found: dict[str, object] = {
            "topic": self._subject.output,
            "partition": partition,
            "start": file.start,
            "end": file.end,
            "records": len(content.lines),
            "digest": content.digest,
        }
        if {name: content.manifest.get(name) for name in found} != found:
            self._problems.add("files: manifest", f"{place} says {content.manifest}, but is {found}")

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
            self._problems.told(),
            self._subject.count,
            kinds["exported"],
            kinds["untracked"],
            kinds["broken"],
            self._files,
            self._unseen,
        )


def _number(value: bytes | None) -> int:
    """The number of an event; -1 for anything else."""
    match = _NUMBER.search(value or b"")
    return int(match[1]) if match else -1
