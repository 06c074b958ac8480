"""The checker of the proof, shown what a broken worker would leave behind."""

import gzip
import hashlib
import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.chaos.checker import Subject, check
from tests.chaos.stream import case
from tests.support.kafka_records import Sent, create_topic, produce

COUNT = 300
SENT_MS = 1_700_000_000_000


@dataclass
class World:
    """What was left behind: by default, all as it should be. Files are the ranges between `cuts`."""

    exported: list[int] = field(
        default_factory=lambda: [number for number in range(COUNT) if case(number).enriched is not None]
    )
    dead: list[int] = field(
        default_factory=lambda: [number for number in range(COUNT) if case(number).reason is not None]
    )
    cuts: list[tuple[int, int]] = field(default_factory=lambda: [(0, 100), (100, 200), (200, 269)])
    committed: int = 269
    metadata: str = '{"v":1}'
    archived: Callable[[list[bytes]], list[bytes]] = lambda values: values

    def make(self, servers: str, folder: Path) -> Subject:
        """Produce and write it all."""
        admin = AdminClient({"bootstrap.servers": servers})
        ingest, output, dead = (create_topic(admin, f"checker-{role}") for role in ("in", "out", "dead"))
        group = f"{output}.sink"
        cases = {number: case(number) for number in range(COUNT)}
        produce(servers, ingest, [Sent(c.key, c.value, c.headers, 0, SENT_MS) for c in cases.values()])
        produce(servers, output, [Sent(cases[n].key, _value(n), cases[n].headers) for n in self.exported])
        produce(servers, dead, [_letter(ingest, n) for n in self.dead])
        values = [_value(n) for n in self.exported]
        for start, end in self.cuts:
            _write(folder / output, output, start, end, self.archived(values[start:end]))
        _commit(servers, group, TopicPartition(output, 0, self.committed, self.metadata))
        return Subject(servers, ingest, output, dead, group, folder, COUNT)


def _letter(ingest: str, number: int) -> Sent:
    record = case(number)
    headers = {
        "stage": "enrich",
        "topic": ingest,
        "partition": "0",
        "offset": str(number),
        "timestamp": str(SENT_MS),
        "reason": record.reason or "",
        "error": "",
        "version": "",
    }
    ours = [(f"flagstream-{name}", text.encode()) for name, text in headers.items()]
    return Sent(record.key, record.value, [*record.headers, *ours])


def _value(number: int) -> bytes:
    return case(number).enriched or case(number).value or b""


def _write(folder: Path, topic: str, start: int, end: int, values: list[bytes]) -> None:
    digest = hashlib.sha256(b"".join(struct.pack(">I", len(value)) + value for value in values))
    says = {"topic": topic, "partition": 0, "start": start, "end": end, "records": len(values)}
    text = json.dumps({**says, "digest": digest.hexdigest()}).encode()
    extra = struct.pack("<2sH", b"FS", len(text)) + text
    plain = gzip.compress(b"".join(value + b"\n" for value in values), mtime=0)
    header = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + struct.pack("<H", len(extra)) + extra
    (folder / "0").mkdir(parents=True, exist_ok=True)
    (folder / "0" / f"{start:019}-{end:019}.jsonl.gz").write_bytes(header + plain[10:])


def _commit(servers: str, group: str, offset: TopicPartition) -> None:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": group})
    consumer.commit(offsets=[offset], asynchronous=False)
    consumer.close()


ALL = World().exported
UNTRACKED = 4
CHECKS: dict[str, tuple[Callable[[], World], set[str]]] = {
    "nothing where all is as it should be": (World, set()),
    "what is lost, and a plan that was left": (
        partial(World, ALL[:-1], dead=[], cuts=[(0, 268)], committed=268, metadata='{"v":1,"end":300}'),
        {"output: LOST", "files: LOST", "dead letters: LOST", "committed offset"},
    ),
    "what is doubled, or was not to be exported": (
        partial(World, [*ALL, ALL[-1], UNTRACKED], dead=[150, 150], cuts=[(0, 271)], committed=271),
        {
            *("output: DOUBLED", "output: order", "output: not to be exported", "output: not to be there"),
            *("files: DOUBLED", "files: not to be there", "dead letters: DOUBLED"),
        },
    ),
    "a missing file, and an offset behind": (
        partial(World, cuts=[(0, 100), (200, 269)], committed=200),
        {"files: gap", "files: LOST", "committed offset"},
    ),
    "a missing last file, and records out of order": (
        partial(World, cuts=[(0, 100), (100, 200)], archived=lambda values: values[::-1]),
        {"files: end", "files: LOST", "files: other records than the topic"},
    ),
    "files that overlap": (
        partial(World, cuts=[(0, 100), (90, 269)]),
        {"files: overlap", "files: DOUBLED", "files: other records than the topic"},
    ),
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_checker_finds(name: str, tmp_path: Path) -> None:
    """Each kind of loss, double or disorder is found and named; where there is none, nothing is."""
    make, expected = CHECKS[name]
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    assert servers, "KAFKA_BOOTSTRAP_SERVERS is not set: run `make test`, which starts a Kafka"

    problems = check(make().make(servers, tmp_path)).problems

    assert set(problems) == expected
