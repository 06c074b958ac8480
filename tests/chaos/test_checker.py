"""The checker of the proof finds what a broken worker would leave."""

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

from tests.chaos.archive import Hive, OneObject
from tests.chaos.checker import Subject, check
from tests.chaos.contents import GzipLines
from tests.chaos.stores import Folder
from tests.chaos.stream import case
from tests.support.kafka_records import Sent, create_topic, produce

COUNT = 300
SENT_MS = 1_700_000_000_000


@dataclass
class World:
    """Return what a fleet left: by default, all as it should be. Windows are the ranges between `cuts`, each
    a file or, with `hive`, a file for each day, hour and flag, and an index; `spoil` gets the folder with
    them.
    """

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
    hive: bool = False
    spoil: Callable[[Path], object] = lambda folder: None

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
            write = _write_hive if self.hive else _write_file
            write(folder, output, start, end, self.archived(values[start:end]))
        self.spoil(folder)
        _commit(servers, group, TopicPartition(output, 0, self.committed, self.metadata))
        archive = (Hive if self.hive else OneObject)(Folder(folder), GzipLines())
        return Subject(servers, ingest, output, dead, group, archive, COUNT)


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


def _manifest(topic: str, start: int, end: int, values: list[bytes], **more: object) -> dict[str, object]:
    digest = hashlib.sha256(b"".join(struct.pack(">I", len(value)) + value for value in values)).hexdigest()
    says = {"topic": topic, "partition": 0, "start": start, "end": end, "records": len(values)}
    return {**says, "digest": digest, **more}


def _write(path: Path, manifest: dict[str, object], values: list[bytes]) -> None:
    text = json.dumps(manifest).encode()
    extra = struct.pack("<2sH", b"FS", len(text)) + text
    plain = gzip.compress(b"".join(value + b"\n" for value in values), mtime=0)
    header = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + struct.pack("<H", len(extra)) + extra
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + plain[10:])


def _write_file(folder: Path, topic: str, start: int, end: int, values: list[bytes]) -> None:
    path = folder / topic / "0" / f"{start:019}-{end:019}.jsonl.gz"
    _write(path, _manifest(topic, start, end, values), values)


def _write_hive(folder: Path, topic: str, start: int, end: int, values: list[bytes]) -> None:
    placed: dict[tuple[str, str, str], list[bytes]] = {}
    for value in values:
        event = json.loads(value)
        placed.setdefault((*TIMES[event["creationDate"]], event["key"]), []).append(value)
    objects = []
    for (date, hour, flag), theirs in placed.items():
        name = f"date={date}/hour={hour}/flag={flag}/{topic}-0-{start:019}-{end:019}.jsonl.gz"
        manifest = _manifest(topic, start, end, theirs, path=f"{date}/{hour}/{flag}")
        _write(folder / name, manifest, theirs)
        objects.append({"name": name, "records": len(theirs), "digest": manifest["digest"]})
    index = folder / "_index" / topic / "0" / f"{start:019}-{end:019}.json"
    index.parent.mkdir(parents=True, exist_ok=True)
    index.write_text(json.dumps(_manifest(topic, start, end, values, objects=objects)))


def _add_stray(folder: Path) -> None:
    (folder / "stray").touch()


def _spoil_objects(folder: Path) -> None:
    """One window misses an object, in another one two are in each other's places, and there is a copy."""
    first, second, *_ = sorted(folder.glob("date=*/*/*/*-0000000000000000100.jsonl.gz"))
    first_data, second_data = first.read_bytes(), second.read_bytes()
    first.write_bytes(second_data)
    second.write_bytes(first_data)
    missing = min(folder.glob("date=*/*/*/*-0000000000000000200.jsonl.gz"))
    missing.rename(missing.with_name("copy.jsonl.gz"))


def _spoil_index(folder: Path) -> None:
    min(folder.glob("_index/*/*/*")).unlink()


def _commit(servers: str, group: str, offset: TopicPartition) -> None:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": group})
    consumer.commit(offsets=[offset], asynchronous=False)
    consumer.close()


TIMES = {
    1618228297: ("2021-04-12", "11"),
    1618271497: ("2021-04-12", "23"),
    1618314697: ("2021-04-13", "11"),
}
ALL = World().exported
UNTRACKED = 4
CHECKS: dict[str, tuple[Callable[[], World], set[str]]] = {
    "nothing where all is as it should be": (World, set()),
    "what is lost, and a plan that was left": (
        partial(World, ALL[:-1], dead=[], cuts=[(0, 268)], committed=268, metadata='{"v":1,"end":300}'),
        {"output: LOST", "objects: LOST", "dead letters: LOST", "committed offset"},
    ),
    "what is doubled, or was not to be exported": (
        partial(World, [*ALL, ALL[-1], UNTRACKED], dead=[150, 150], cuts=[(0, 271)], committed=271),
        {
            *("output: DOUBLED", "output: order", "output: not to be exported", "output: not to be there"),
            *("objects: DOUBLED", "objects: not to be there", "dead letters: DOUBLED"),
        },
    ),
    "a missing file, one of no window, and an offset after it": (
        partial(World, cuts=[(0, 100), (200, 269)], committed=200, spoil=_add_stray),
        {"objects: gap", "objects: LOST", "objects: of no window", "committed offset"},
    ),
    "a missing last file, and records out of order": (
        partial(World, cuts=[(0, 100), (100, 200)], archived=lambda values: values[::-1]),
        {"objects: end", "objects: LOST", "objects: other records than the topic"},
    ),
    "files that overlap": (
        partial(World, cuts=[(0, 100), (90, 269)]),
        {"objects: overlap", "objects: DOUBLED", "objects: other records than the topic"},
    ),
    "nothing where all is as it should be in a layout": (partial(World, hive=True), set()),
    "objects of a layout that are missing, doubled, or in each other's places": (
        partial(World, hive=True, spoil=_spoil_objects),
        {
            *("objects: missing", "objects: LOST", "objects: of no window"),
            *("objects: other records than the topic", "objects: manifest", "objects: index"),
        },
    ),
    "a window of a layout without its index, and records that are in no object": (
        partial(World, hive=True, archived=lambda values: values[1:], spoil=_spoil_index),
        {
            *("objects: of no window", "objects: gap", "objects: LOST"),
            *("objects: other records than the topic", "objects: manifest"),
        },
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
