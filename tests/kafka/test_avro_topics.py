"""Topics in Avro, with a real Kafka and a real schema registry: the same events come out as with JSON."""

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import fastavro
import pytest
from confluent_kafka.admin import AdminClient

from tests.support.apicurio import Apicurio
from tests.support.exporting import files
from tests.support.kafka_records import Received, Sent, produce
from tests.support.running_worker import RunningWorker, Topics, await_records, configuration, eventually

RAW = Path("avro/raw_event.avsc").read_text()
ENRICHED = Path("avro/enriched_event.avsc").read_text()


@pytest.fixture(scope="module")
def registry() -> Iterator[Apicurio]:
    """One schema registry for all tests; without Java and Maven they fail."""
    with Apicurio() as running:
        yield running


class World(NamedTuple):
    """Holds a worker's topics and configuration, with a file sink called `archive`."""

    bootstrap: str
    topics: Topics
    folder: Path
    config: dict[str, Any]

    @classmethod
    def create(cls, admin: AdminClient, bootstrap: str, folder: Path, url: str, **topics: Any) -> "World":
        names = Topics.create(admin, "avro")
        formats = {"ingest_format": "avro", "output_format": "avro"}
        config = configuration(
            bootstrap,
            folder,
            names,
            registry={"url": url, "auto_register": True, "timeout": "2s"} if url else {},
            sinks={"archive": files(folder / "archive")},
        )
        config["topics"] |= {**formats, **topics}
        return cls(bootstrap, names, folder, config)

    def send(self, *values: bytes) -> None:
        """Produce to the ingest topic."""
        produce(self.bootstrap, self.topics.ingest, [Sent(b"k", value) for value in values])

    def exported(self, count: int) -> list[dict[str, Any]]:
        """The events of all files once there are `count`."""
        found: list[dict[str, Any]] = []

        def all_there() -> bool:
            paths = sorted((self.folder / "archive").rglob("*.gz"))
            lines = b"".join(gzip.decompress(path.read_bytes()) for path in paths).splitlines()
            found[:] = map(json.loads, lines)
            return len(found) >= count

        eventually(all_there)
        assert len(found) == count
        return found

    def dead_letters(self, count: int) -> list[tuple[bytes | None, bytes, bytes]]:
        """Value, stage and reason of each dead letter once there are `count`."""
        return [_letter(record) for record in await_records(self.bootstrap, self.topics.dead_letters, count)]


def _letter(record: Received) -> tuple[bytes | None, bytes, bytes]:
    headers = dict(record.headers)
    return record.value, headers["flagstream-stage"], headers["flagstream-reason"]


def bare(schema: str, record: dict[str, Any]) -> bytes:
    """Return a record as Avro data alone."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(schema)), record)
    return out.getvalue()


def framed(number: int, record: dict[str, Any], schema: str = RAW) -> bytes:
    """A record as a producer with a registry writes it."""
    return b"\0" + number.to_bytes(4) + bare(schema, record)


def raw(number: int, **fields: Any) -> dict[str, Any]:
    """A raw event that carries a number."""
    return {
        "kind": "feature",
        "userKey": f"u{number}",
        "creationDate": 1618228297123,
        "key": "new-checkout",
        "value": "true",
        **fields,
    }


def enriched(number: int, **fields: Any) -> dict[str, Any]:
    """What becomes of it."""
    return {
        "kind": "feature",
        "contextKind": "user",
        "userKey": f"u{number}",
        "creationDate": 1618228297,
        "key": "new-checkout",
        "variation": "on",
        "value": True,
        "default": False,
        "version": "1.4",
        "source": "PROVIDER_CACHE",
        **fields,
    }


def failures(worker: RunningWorker) -> float:
    """Calls to the registry that failed."""
    name = "flagstream_registry_failures"
    return sum(s.value for m in worker.metrics() if m.name == name for s in m.samples)


def test_events_travel_from_avro_through_avro_into_files(
    admin: AdminClient, bootstrap: str, tmp_path: Path, registry: Apicurio
) -> None:
    """Whatever an event holds is in the file: numbers unrounded, fields that no schema has, nulls. What
    cannot be read is a dead letter with its reason, and holds nothing up. An event that is still JSON passes.
    """
    world = World.create(admin, bootstrap, tmp_path, registry.url)
    number = registry.register(f"{world.topics.ingest}-value", RAW)
    odd = raw(2, metadata='{"n":12345678901234567890.10}', otherFields='{"region":"eu","version":7}')
    unknown = framed(987_654, raw(3))
    no_event = json.dumps({**raw(4), "userKey": 4}).encode()
    json_text = json.dumps(raw(7, value=True)).encode()
    cut = framed(number, raw(5))[:-3]

    world.send(framed(number, raw(1)), unknown, framed(number, odd), no_event, cut, framed(number, raw(6)))
    world.send(json_text)
    with RunningWorker(world.config, tmp_path) as worker:
        files_hold = world.exported(4)
        letters = world.dead_letters(3)
        output = await_records(bootstrap, world.topics.output, 4)
        failed = failures(worker)

    assert enriched(1) in files_hold
    assert enriched(6) in files_hold
    assert enriched(7) in files_hold
    [two] = [event for event in files_hold if event["userKey"] == "u2"]
    assert two == enriched(2, version=7, region="eu", metadata={"n": 12345678901234567890.10})
    lines = b"".join(gzip.decompress(path.read_bytes()) for path in (tmp_path / "archive").rglob("*.gz"))
    assert b"12345678901234567890.10" in lines
    assert letters == [
        (unknown, b"enrich", b"unknown_schema"),
        (no_event, b"enrich", b"invalid_avro"),
        (cut, b"enrich", b"invalid_avro"),
    ]
    written = [record.value or b"" for record in output]
    assert {value[:1] for value in written} == {b"\0"}
    identity = registry.register(f"{world.topics.output}-value", ENRICHED)
    assert {int.from_bytes(value[1:5]) for value in written} == {identity}
    assert failed == 0


def test_what_a_sink_cannot_read_is_a_dead_letter_of_that_sink(
    admin: AdminClient, bootstrap: str, tmp_path: Path, registry: Apicurio
) -> None:
    """JSON, an unknown schema and a tombstone in an output topic that is Avro do not reach the files."""
    world = World.create(admin, bootstrap, tmp_path, registry.url)
    number = registry.register(f"{world.topics.output}-value", ENRICHED)
    event = {**enriched(1), "value": "true"}
    good, unknown, text = framed(number, event, ENRICHED), framed(987_654, event, ENRICHED), b'{"kind":"x"}'

    produce(bootstrap, world.topics.output, [Sent(b"k", value) for value in (text, good, unknown, None)])
    with RunningWorker(world.config, tmp_path, arguments=("--sink", "archive")):
        assert world.exported(1) == [enriched(1)]
        assert world.dead_letters(3) == [
            (text, b"sink.archive", b"invalid_avro"),
            (unknown, b"sink.archive", b"unknown_schema"),
            (None, b"sink.archive", b"tombstone"),
        ]


def test_a_backlog_of_the_other_format_is_exported_and_not_dead_lettered(
    admin: AdminClient, bootstrap: str, tmp_path: Path, registry: Apicurio
) -> None:
    """A topic that becomes JSON while it holds Avro stops, loudly; as Avro, all of it is exported, what is
    JSON included.
    """
    world = World.create(admin, bootstrap, tmp_path, registry.url)
    number = registry.register(f"{world.topics.output}-value", ENRICHED)
    avro = framed(number, {**enriched(1), "value": "true"}, ENRICHED)
    text = json.dumps(enriched(2)).encode()
    produce(bootstrap, world.topics.output, [Sent(b"k", value) for value in (text, avro, text, b"\0oops!")])
    only = ("--sink", "archive")

    as_json = {**world.config, "topics": {**world.config["topics"], "output_format": "json"}}
    with RunningWorker(as_json, tmp_path, arguments=only) as worker:
        worker.await_problem(lambda found: "at offset 1 is an event in Avro" in str(found.get("archive")))
    with RunningWorker(world.config, tmp_path, arguments=only):
        assert world.exported(3) == [enriched(2), enriched(1), enriched(2)]
        assert [letter[0] for letter in world.dead_letters(1)] == [b"\0oops!"]


def test_a_planned_window_stays_the_same_when_a_schema_becomes_known(
    admin: AdminClient, bootstrap: str, tmp_path: Path, registry: Apicurio
) -> None:
    """The worker is killed after its plan, and the id that was unknown then is registered: the successor
    delivers what was planned, the record is a dead letter once, and later ones with that id are events.
    """
    world = World.create(admin, bootstrap, tmp_path, registry.url)
    subject = f"{world.topics.output}-value"
    now, later = (
        ENRICHED.replace("An event as it leaves the enrich stage.", f"{subject} {when}")
        for when in ("now", "later")
    )
    number = registry.register(subject, now)
    unknown = number + 1  # ids are given one after the other

    def send(*ids: int) -> None:
        records = [{**enriched(at), "value": "true"} for at in range(len(ids))]
        values = [framed(one, record, ENRICHED) for one, record in zip(ids, records, strict=True)]
        produce(bootstrap, world.topics.output, [Sent(b"k", value) for value in values])

    send(number, unknown, number)
    only = ("--sink", "archive")
    with RunningWorker(world.config, tmp_path, crash="export.planned:kill", arguments=only) as worker:
        assert worker.wait() == -9
    assert registry.register(subject, later) == unknown

    with RunningWorker(world.config, tmp_path, arguments=only) as worker:
        assert world.exported(2) == [enriched(0), enriched(2)]
        assert [letter[2] for letter in world.dead_letters(1)] == [b"unknown_schema"]
        send(unknown)
        assert world.exported(3)[2] == enriched(0)
        assert worker.seen("plan_taken_over")
    assert len(world.dead_letters(1)) == 1


def test_a_registry_that_is_down_is_waited_for(
    admin: AdminClient, bootstrap: str, tmp_path: Path, registry: Apicurio
) -> None:
    """If the registry is down at the start, the worker is not ready, with the reason. Down later: a schema
    not seen before waits, visibly, and nothing is dropped.
    """
    world = World.create(admin, bootstrap, tmp_path, registry.url)
    number = registry.register(f"{world.topics.ingest}-value", RAW)
    with registry.frozen(), RunningWorker(world.config, tmp_path) as worker:
        worker.await_problem(lambda found: "does not answer" in str(found.get("enrich")))
        registry.thaw()
        worker.await_event("schema_in_use")
        worker.await_problem(lambda found: not found)
        registry.freeze()
        world.send(framed(number, raw(1)))
        worker.await_problem(lambda found: f"waits for schema {number}" in str(found.get("enrich")))
        registry.thaw()

        assert world.exported(1) == [enriched(1)]
        assert failures(worker) > 0
        worker.await_event("registry_recovered")


def test_bare_avro_with_schema_files_needs_no_registry(
    admin: AdminClient, bootstrap: str, tmp_path: Path
) -> None:
    """Values hold Avro data alone, of the schemas in the files: the producer's own, and a former version of
    ours.
    """
    own = tmp_path / "own.avsc"
    own.write_text(
        json.dumps(
            {
                "type": "record",
                "name": "Evaluation",
                "fields": [
                    {"name": "kind", "type": "string"},
                    {"name": "userKey", "type": "string"},
                    {"name": "creationDate", "type": {"type": "long", "logicalType": "timestamp-millis"}},
                    {"name": "key", "type": "string"},
                    {"name": "value", "type": ["boolean", "double", "string"]},
                    {"name": "tags", "type": {"type": "array", "items": "string"}},
                ],
            }
        )
    )
    world = World.create(
        admin,
        bootstrap,
        tmp_path,
        "",
        ingest_schema=str(own),
        output_schema=str(Path("avro/history/enriched_event.2.avsc").resolve()),
    )
    event = {**raw(1), "value": True, "tags": ["a", "b"]}

    world.send(bare(own.read_text(), event), b'{"kind":"feature"}')
    with RunningWorker(world.config, tmp_path):
        assert world.exported(1) == [enriched(1, tags=["a", "b"])]
        assert [letter[2] for letter in world.dead_letters(1)] == [b"invalid_avro"]
