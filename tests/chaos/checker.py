"""The independent checker: reads topics, files and committed offsets, and counts. No code of the worker.

What a file's name and header mean is taken from docs/sinks/file.md, what a dead letter's headers mean from
docs/events.md, what comes out of an event from tests/chaos/stream.py.
"""

import gzip
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from tests.chaos.stream import Case, case

EXAMPLES = 5
"""Problems of one kind that are told one by one; of the others only the number."""
SILENCE = 60.0
"""Seconds without an answer after which reading a topic fails."""

_NUMBER = re.compile(rb'"userKey":"u-(\d+)"')
_FILE = re.compile(r"(\d{19})-(\d{19})\.jsonl\.gz")


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


class Problems:
    """What is wrong, by kind."""

    def __init__(self) -> None:
        self._kinds: dict[str, list[str]] = {}

    def add(self, kind: str, text: object) -> None:
        self._kinds.setdefault(kind, []).append(str(text))

    def lines(self) -> list[str]:
        """A line for each kind: how many, and some of them."""
        return [
            f"{kind}: {len(found)}: {'; '.join(found[:EXAMPLES])}"
            for kind, found in sorted(self._kinds.items())
        ]


@dataclass(frozen=True)
class Verdict:
    """`problems` is empty when every event is where it belongs, once."""

    problems: list[str]
    records: int
    enriched: int
    untracked: int
    broken: int
    files: int
    aborted: int
    """Offsets of the output topic that no reader sees: records of aborted transactions, and markers."""


class Line(NamedTuple):
    """A record of the output topic."""

    offset: int
    value: bytes


class File(NamedTuple):
    """A file of the archive, as its name has it."""

    start: int
    end: int
    path: Path


class Checker:
    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._problems = Problems()
        self._ingested = bytearray(subject.count)
        self._published = bytearray(subject.count)
        self._archived = bytearray(subject.count)
        self._dead = bytearray(subject.count)
        self._broken: dict[tuple[int, int], tuple[int, Message]] = {}
        self._invisible = 0
        self._files = 0

    def check(self) -> Verdict:
        """Read everything once."""
        self._read_ingest()
        with _client(self._subject) as consumer:
            partitions = _partitions(consumer, self._subject.output)
            committed = _committed(consumer, self._subject, partitions)
        folders = {path.name for path in (self._subject.archive / self._subject.output).iterdir()}
        for foreign in sorted(folders - {str(partition) for partition in partitions}):
            self._problems.add("folders of no partition", foreign)
        for partition in partitions:
            lines = self._read_output(partition)
            self._read_files(partition, lines, committed[partition])
        self._read_dead_letters()
        return self._verdict()

    # ── the ingest topic: what was really there ────────────────────────────────────────────────────────────

    def _read_ingest(self) -> None:
        for message in _records(self._subject, self._subject.ingest):
            key, value = _bytes(message.key()), _bytes(message.value())
            if key is not None and key.startswith(b"broken-"):
                number = int(key.removeprefix(b"broken-"))
                self._broken[_at(message)] = number, message
            else:
                number = _number(value)
            self._count("ingest", self._ingested, number)

    # ── the output topic ───────────────────────────────────────────────────────────────────────────────────

    def _read_output(self, partition: int) -> list[Line]:
        lines: list[Line] = []
        last: dict[bytes, int] = {}
        for message in _records(self._subject, self._subject.output, partition):
            _, offset = _at(message)
            key, value = _bytes(message.key()), _bytes(message.value()) or b""
            number = _number(value)
            lines.append(Line(offset, value))
            if not self._count("output", self._published, number):
                continue
            self._compare(number, case(number), key, value, message)
            if key is not None:
                if last.get(key, -1) >= number:
                    self._problems.add("output: order of a key", f"{key!r}: {number} behind {last[key]}")
                last[key] = number
        self._invisible += (lines[-1].offset + 1 if lines else 0) - len(lines)
        return lines

    def _compare(
        self, number: int, expected: Case, key: bytes | None, value: bytes, message: Message
    ) -> None:
        if expected.enriched is None:
            self._problems.add("output: not to be exported", f"event {number}: {value[:200]!r}")
        elif value != expected.enriched and json.loads(value) != json.loads(expected.enriched):
            self._problems.add(
                "output: other content", f"event {number}: {value!r}, not {expected.enriched!r}"
            )
        if key != expected.key:
            self._problems.add("output: other key", f"event {number}: {key!r}, not {expected.key!r}")
        if _headers(message) != expected.headers:
            self._problems.add("output: other headers", f"event {number}: {_headers(message)}")

    # ── the files ──────────────────────────────────────────────────────────────────────────────────────────

    def _read_files(self, partition: int, lines: list[Line], committed: TopicPartition) -> None:
        place = f"{self._subject.output}-{partition}"
        at = next_line = 0  # nothing was ever deleted: the partition begins at 0
        for file in self._listing(partition):
            self._files += 1
            if file.start != at:
                what = "files: overlap" if file.start < at else "files: gap"
                self._problems.add(what, f"{place}: {file.path.name} follows on {at}")
            at = file.end
            expected: list[bytes] = []
            while next_line < len(lines) and lines[next_line].offset < file.end:
                expected.append(lines[next_line].value)
                next_line += 1
            self._read_file(partition, file, expected)
        end = lines[-1].offset + 1 if lines else 0
        if at != end:
            self._problems.add("files: end", f"{place}: the files end at {at}, the records at {end}")
        if committed.offset != end:
            self._problems.add(
                "offsets", f"{place}: {committed.offset} is committed, the records end at {end}"
            )
        if '"end"' in (committed.metadata or ""):
            self._problems.add("offsets: pending plan", f"{place}: {committed.metadata}")

    def _listing(self, partition: int) -> list[File]:
        files = []
        for path in (self._subject.archive / self._subject.output / str(partition)).iterdir():
            match = _FILE.fullmatch(path.name)
            if match is None:
                self._problems.add("files: name", path.name)
            else:
                files.append(File(int(match[1]), int(match[2]), path))
        return sorted(files)

    def _read_file(self, partition: int, file: File, expected: list[bytes]) -> None:
        place = f"{partition}/{file.path.name}"
        data = file.path.read_bytes()
        content = gzip.decompress(data)
        lines = content.split(b"\n")
        if lines.pop() != b"":
            self._problems.add("files: last line is cut off", place)
        if lines != expected:
            self._problems.add(
                "files: other records than the topic", f"{place}: {len(lines)}, not {len(expected)}"
            )
        for line in lines:
            self._count("files", self._archived, _number(line))
        digest = hashlib.sha256()
        for line in lines:
            digest.update(len(line).to_bytes(4, "big") + line)
        says = _manifest(data)
        found: dict[str, object] = {
            "topic": self._subject.output,
            "partition": partition,
            "start": file.start,
            "end": file.end,
            "records": len(lines),
            "digest": digest.hexdigest(),
        }
        if {name: says.get(name) for name in found} != found:
            self._problems.add("files: manifest", f"{place} says {says}, but it is {found}")

    # ── the dead letters ───────────────────────────────────────────────────────────────────────────────────

    def _read_dead_letters(self) -> None:
        for message in _records(self._subject, self._subject.dead_letters):
            headers = {name: value.decode() for name, value in _headers(message)}
            try:
                origin = int(headers["flagstream-partition"]), int(headers["flagstream-offset"])
                number, record = self._broken[origin]
            except (KeyError, ValueError):
                self._problems.add("dead letters: of no broken record", headers)
                continue
            self._count("dead letters", self._dead, number)
            expected = {
                "flagstream-topic": self._subject.ingest,
                "flagstream-timestamp": str(record.timestamp()[1]),
                "flagstream-reason": case(number).reason,
                "flagstream-stage": "enrich",
            }
            wrong = {
                name: headers.get(name) for name, value in expected.items() if headers.get(name) != value
            }
            missing = {"flagstream-error", "flagstream-version"} - headers.keys()
            if wrong or missing:
                self._problems.add("dead letters: headers", f"record {number}: {wrong or missing}")
            if (message.key(), message.value()) != (record.key(), record.value()):
                self._problems.add("dead letters: other key or value", f"record {number}")
            if _headers(message)[: len(_headers(record))] != _headers(record):
                self._problems.add("dead letters: original headers", f"record {number}")

    # ── counting ───────────────────────────────────────────────────────────────────────────────────────────

    def _count(self, place: str, counts: bytearray, number: int) -> bool:
        if not 0 <= number < len(counts):
            self._problems.add(f"{place}: foreign record", number)
            return False
        counts[number] = min(counts[number] + 1, 255)
        return True

    def _verdict(self) -> Verdict:
        kinds: Counter[str] = Counter()
        for number in range(self._subject.count):
            expected = case(number)
            kept, dead = int(expected.enriched is not None), int(expected.reason is not None)
            kinds["enriched" if kept else "broken" if dead else "untracked"] += 1
            self._expect("ingest", number, self._ingested[number], 1)
            self._expect("output", number, self._published[number], kept)
            self._expect("files", number, self._archived[number], kept)
            self._expect("dead letters", number, self._dead[number], dead)
        return Verdict(
            self._problems.lines(),
            self._subject.count,
            kinds["enriched"],
            kinds["untracked"],
            kinds["broken"],
            self._files,
            self._invisible,
        )

    def _expect(self, place: str, number: int, found: int, expected: int) -> None:
        if found != expected:
            what = "LOST" if found < expected else "DOUBLED" if expected else "not to be there"
            self._problems.add(f"{place}: {what}", f"record {number}: {found} times")


# ── reading ────────────────────────────────────────────────────────────────────────────────────────────────


class _client:
    """A consumer that only looks: it joins no group, and reads what is committed."""

    def __init__(self, subject: Subject) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": subject.bootstrap_servers,
                "group.id": subject.group,
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
            }
        )

    def __enter__(self) -> Consumer:
        return self._consumer

    def __exit__(self, *_: object) -> None:
        self._consumer.close()


def _partitions(consumer: Consumer, topic: str) -> list[int]:
    return sorted(consumer.list_topics(topic, timeout=SILENCE).topics[topic].partitions)


def _committed(consumer: Consumer, subject: Subject, partitions: list[int]) -> dict[int, TopicPartition]:
    wanted = [TopicPartition(subject.output, partition) for partition in partitions]
    return {found.partition: found for found in consumer.committed(wanted, timeout=SILENCE)}


def _records(subject: Subject, topic: str, partition: int | None = None) -> Iterator[Message]:
    """The records of a topic (or of one partition) from its beginning to its end."""
    with _client(subject) as consumer:
        unfinished = set(_partitions(consumer, topic) if partition is None else [partition])
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in unfinished])
        while unfinished:
            messages = consumer.consume(10_000, timeout=0.1) or consumer.consume(1, timeout=SILENCE)
            if not messages:
                raise TimeoutError(
                    f"{topic}: nothing for {SILENCE:g} s, {sorted(unfinished)} not at their end"
                )
            yield from _readable(messages, unfinished)


def _readable(messages: Iterable[Message], unfinished: set[int]) -> Iterator[Message]:
    for message in messages:
        error = message.error()
        if error is None:
            yield message
        elif error.code() == KafkaError._PARTITION_EOF:
            unfinished.discard(int(message.partition() or 0))
        elif not error.retriable():
            raise KafkaException(error)


def _at(message: Message) -> tuple[int, int]:
    return int(message.partition() or 0), int(message.offset() or 0)


def _bytes(value: object) -> bytes | None:
    assert value is None or isinstance(value, bytes)
    return value


def _headers(message: Message) -> list[tuple[str, bytes]]:
    headers = message.headers() or []
    assert isinstance(headers, list)
    return [(name, _bytes(value) or b"") for name, value in headers]


def _number(value: bytes | None) -> int:
    """The number of an event; -1 for anything else."""
    match = _NUMBER.search(value or b"")
    return int(match[1]) if match else -1


def _manifest(data: bytes) -> dict[str, Any]:
    """What a file says of itself: JSON in the subfield FS of the gzip header's extra field (RFC 1952)."""
    if data[:3] != b"\x1f\x8b\x08" or not data[3] & 4:
        return {}
    extra = data[12 : 12 + int.from_bytes(data[10:12], "little")]
    while len(extra) >= 4:
        length = int.from_bytes(extra[2:4], "little")
        if extra[:2] == b"FS":
            return dict(json.loads(extra[4 : 4 + length]))
        extra = extra[4 + length :]
    return {}


def check(subject: Subject) -> Verdict:
    """Examine what a fleet left behind, after it has stopped."""
    return Checker(subject).check()
