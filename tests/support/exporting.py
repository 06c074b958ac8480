"""Runs a worker with nothing but a file sink, on topics of a test's own."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from confluent_kafka.admin import AdminClient

from tests.support.archive import Committed, StoredWindow, committed, lines, reset, stored
from tests.support.kafka_limits import BrokerLimits, Protocol
from tests.support.kafka_records import Sent, produce
from tests.support.running_worker import Configuration, RunningWorker, Topics, configuration, eventually


def event(number: int) -> bytes:
    """An enriched event that carries a number."""
    return b'{"kind":"feature","userKey":"u%d","key":"banner","value":true}' % number


def events(count: int, first: int = 0) -> list[bytes]:
    return [event(number) for number in range(first, first + count)]


def files(folder: Path, **settings: Any) -> dict[str, Any]:
    """Return a file sink in `folder` whose windows close at ten events or after 300 ms."""
    return {
        "type": "file",
        "path": str(folder),
        "max_events": 10,
        "flush_interval": "300ms",
        **settings,
    }


def kafka_section(protocol: Protocol, limits: BrokerLimits) -> dict[str, Any]:
    """The section `kafka` for sessions as short as the broker allows."""
    session = limits.session_ms(protocol)
    section: dict[str, Any] = {"group_protocol": protocol, "session_timeout": f"{session}ms"}
    if protocol == "classic":
        section["consumer_properties"] = {"heartbeat.interval.ms": max(100, session // 5)}
    return section


class Exporting(NamedTuple):
    """Topics, the folder that the sink called `archive` fills, and the worker's configuration.

    Tests produce to the output topic themselves: what an enrich stage would write.
    """

    admin: AdminClient
    bootstrap: str
    topics: Topics
    folder: Path
    config: Configuration

    @classmethod
    def create(
        cls,
        admin: AdminClient,
        bootstrap: str,
        folder: Path,
        *,
        partitions: int = 1,
        kafka: Mapping[str, Any] | None = None,
        **sink: Any,
    ) -> Self:
        """`kafka` is that section of the configuration, `sink` are settings of the sink."""
        topics = Topics.create(admin, "export", partitions)
        sinks = {"archive": files(folder / "archive", **sink)}
        config = configuration(bootstrap, folder, topics, kafka=kafka or {}, sinks=sinks)
        return cls(admin, bootstrap, topics, folder / "archive", config)

    @contextmanager
    def worker(self, crash: str = "", **sink: Any) -> Iterator[RunningWorker]:
        """Return a worker with that sink alone; `sink` are other settings of it."""
        sinks = {"archive": {**self.config["sinks"]["archive"], **sink}}
        config = {**self.config, "sinks": sinks}
        with RunningWorker(
            config, self.folder.parent, crash=crash, arguments=("--sink", "archive")
        ) as worker:
            yield worker

    def produce(self, values: Sequence[bytes | None], partition: int = 0) -> None:
        """Records with a key and a header to the output topic."""
        produce(
            self.bootstrap,
            self.topics.output,
            [Sent(b"key", value, [("h", b"1")], partition) for value in values],
        )

    def stored(self, partition: int = 0) -> list[StoredWindow]:
        """Return the files of a partition."""
        return stored(self.folder, self.topics.output, partition)

    def await_lines(self, count: int, partition: int = 0) -> list[bytes]:
        """All lines of a partition once there are `count`; fails at more, and when ranges do not tile."""
        eventually(lambda: len(lines(self.stored(partition))) >= count)
        found = lines(self.stored(partition))
        assert len(found) == count
        return found

    def group(self, sink: str = "archive") -> str:
        """Return the consumer group of a sink."""
        return f"{self.config['name']}.sink.{sink}"

    def committed(self, partition: int = 0, sink: str = "archive") -> Committed:
        """Return what the sink's group committed."""
        return committed(self.admin, self.group(sink), self.topics.output, partition + 1)[partition]

    def await_committed(self, offset: int, partitions: int = 1) -> None:
        """Wait until the first `partitions` are committed up to `offset`."""

        def all_there() -> bool:
            found = committed(self.admin, self.group(), self.topics.output, partitions)
            return {one.offset for one in found} == {offset}

        eventually(all_there)

    def reset(self, offset: int, partition: int = 0) -> None:
        """Set the group's offset as an operator does; no worker may run."""
        reset(self.admin, self.group(), self.topics.output, offset, partition)
