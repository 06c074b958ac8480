"""The chunk source: who owns a partition, what may be committed, and what happens when Kafka does not answer.

Each test runs the real source against a real broker, with a stage that writes down what it is told.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from flagstream.chunk import Chunk, Partition, Position
from flagstream.errors import ExitCode, Fatal, OwnershipLost
from flagstream.kafka.commit_metadata import Committed
from flagstream.kafka.source import ChunkSource
from flagstream.kafka.tenure import Tenure
from tests.support.kafka_limits import BrokerLimits
from tests.support.kafka_process import KafkaBroker
from tests.support.kafka_records import Sent, create_topic, produce

Protocol = Literal["classic", "consumer"]
PROTOCOLS: tuple[Protocol, ...] = ("classic", "consumer")
BOUND = 40.0
"""Seconds that anything here may take; only reached when it fails."""


@dataclass
class Recorder:
    """Stands for a stage: keeps the calls that it gets, and the channel that feeds it."""

    trace: list[tuple[str, Any]] = field(default_factory=list)
    tenures: dict[Partition, Tenure] = field(default_factory=dict)
    chunks: list[Chunk] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    on_revoke: Callable[[Collection[Partition]], Any] | None = None

    async def assigned(self, tenures: Collection[Tenure]) -> None:
        self.tenures.update({tenure.partition: tenure for tenure in tenures})
        self._note("assigned", sorted(tenure.partition.index for tenure in tenures))

    async def revoked(self, partitions: Collection[Partition]) -> None:
        if self.on_revoke is not None:
            await self.on_revoke(partitions)
        for partition in partitions:
            self.tenures.pop(partition)
        self._note("revoked", sorted(p.index for p in partitions))

    async def lost(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            self.tenures.pop(partition, None)
        self._note("lost", sorted(p.index for p in partitions))

    async def records_missing(self, tenure: Tenure, position: Position) -> None:
        self._note("missing", (tenure.partition.index, position.offset, position.low))

    async def put(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        self._note("chunk", (chunk.partition.index, chunk.start, chunk.end))

    def _note(self, what: str, detail: Any) -> None:
        self.trace.append((what, detail))
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition; fails with the trace."""
        async with asyncio.timeout(BOUND):
            while not condition():
                self.changed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.changed.wait(), 0.1)


@dataclass
class Running:
    """A source, its stage, and the errors it failed with."""

    source: ChunkSource
    stage: Recorder
    failures: list[BaseException]


@contextlib.asynccontextmanager
async def running(
    bootstrap: str,
    topic: str,
    group: str,
    protocol: Protocol = "classic",
    start: Any = "beginning",
    properties: Mapping[str, Any] = MappingProxyType({}),
) -> AsyncIterator[Running]:
    """Start a source in ``group`` and stop it at the end."""
    stage = Recorder()
    failures: list[BaseException] = []
    made: dict[str, Any] = {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "group.protocol": protocol,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "socket.timeout.ms": 10_000,
    }
    if protocol == "classic":
        made |= {"partition.assignment.strategy": "cooperative-sticky", "session.timeout.ms": 6_000}
    source = ChunkSource(
        "test",
        properties={**made, **properties},
        topic=topic,
        channel=stage,  # type: ignore[arg-type]  # all that the source asks of a channel is put()
        stage=stage,
        start=start,
        session_timeout=6.0,
        fail=failures.append,
    )
    await source.start()
    try:
        yield Running(source, stage, failures)
    finally:
        await source.stop()


def metadata_of(bootstrap: str, group: str, partition: Partition) -> tuple[int, str]:
    """What the group has committed, read by somebody else."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    wanted = [ConsumerGroupTopicPartitions(group, [TopicPartition(partition.topic, partition.index)])]
    found = admin.list_consumer_group_offsets(wanted)[group].result(30).topic_partitions[0]
    return found.offset, found.metadata or ""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_chunks_join_and_cover_everything(bootstrap: str, admin: AdminClient, protocol: Protocol) -> None:
    """Without a committed offset everything is read from the beginning, although the reset policy is an
    error; the chunks of a partition join without a hole."""
    topic = create_topic(admin, "source", 3)
    produce(bootstrap, topic, [Sent(b"k", b"v%d" % n, partition=n % 3) for n in range(9_000)])

    async def main() -> None:
        async with running(bootstrap, topic, topic, protocol) as run:
            await run.stage.until(lambda: sum(len(c.records) for c in run.stage.chunks) == 9_000)
            for index in range(3):
                ends = [(c.start, c.end) for c in run.stage.chunks if c.partition.index == index]
                assert ends[0][0] == 0
                assert all(before[1] == after[0] for before, after in pairwise(ends))
                assert ends[-1][1] == 3_000

    asyncio.run(main())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_commit_needs_the_epoch_of_its_work(bootstrap: str, admin: AdminClient, protocol: Protocol) -> None:
    """A commit of the epoch that stands is written with its metadata; after a rewind the old epoch commits
    nothing.
    """
    topic = create_topic(admin, "source", 1)
    produce(bootstrap, topic, [Sent(b"k", b"v") for _ in range(10)])
    partition = Partition(topic, 0)

    async def main() -> None:
        async with running(bootstrap, topic, topic, protocol) as run:
            await run.stage.until(lambda: bool(run.stage.chunks))
            old = run.stage.tenures[partition]
            await old.commit(4, '{"v":1,"end":9}')
            again = await old.rewind()
            assert again.position.offset == 4
            assert again.position.metadata == '{"v":1,"end":9}'
            with pytest.raises(OwnershipLost):
                await old.commit(9, "")
            assert metadata_of(bootstrap, topic, partition) == (4, '{"v":1,"end":9}')
            await run.stage.until(lambda: run.stage.chunks[-1].epoch == again.epoch)
            assert run.stage.chunks[-1].start == 4

    asyncio.run(main())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_metadata_for_a_transaction_needs_every_epoch(
    bootstrap: str, admin: AdminClient, protocol: Protocol
) -> None:
    """The group's metadata is not given out when one partition of the transaction has moved on."""
    topic = create_topic(admin, "source", 2)
    produce(bootstrap, topic, [Sent(b"k", b"v", partition=n % 2) for n in range(10)])

    async def main() -> None:
        async with running(bootstrap, topic, topic, protocol) as run:
            await run.stage.until(lambda: len(run.stage.tenures) == 2)
            first, second = (run.stage.tenures[Partition(topic, index)] for index in range(2))
            assert await first.group_metadata(second) is not None
            await second.rewind()
            with pytest.raises(OwnershipLost):
                await first.group_metadata(second)

    asyncio.run(main())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_revoke_may_commit_and_the_successor_sees_it(
    bootstrap: str, admin: AdminClient, protocol: Protocol
) -> None:
    """The partition changes hands only when the revoke has returned; until then the old owner may commit."""
    topic = create_topic(admin, "source", 4)
    produce(bootstrap, topic, [Sent(b"k", b"v", partition=n % 4) for n in range(40)])

    async def main() -> None:
        async with running(bootstrap, topic, topic, protocol) as first:

            async def commit_all(partitions: Collection[Partition]) -> None:
                for partition in partitions:
                    await first.stage.tenures[partition].commit(7, "bye")

            first.stage.on_revoke = commit_all
            await first.stage.until(lambda: len(first.stage.tenures) == 4)
            async with running(bootstrap, topic, topic, protocol) as second:
                await second.stage.until(lambda: len(second.stage.tenures) == 2)
                assert {(t.position.offset, t.position.metadata) for t in second.stage.tenures.values()} == {
                    (7, "bye")
                }
                assert len(first.stage.tenures) == 2
                assert not set(first.stage.tenures) & set(second.stage.tenures)

    asyncio.run(main())


def test_partitions_that_stay_keep_their_epoch(bootstrap: str, admin: AdminClient) -> None:
    """Under cooperative rebalancing a new member takes nothing from the work on the partitions that stay."""
    topic = create_topic(admin, "source", 4)
    produce(bootstrap, topic, [Sent(b"k", b"v", partition=n % 4) for n in range(40)])

    async def main() -> None:
        async with running(bootstrap, topic, topic) as first:
            await first.stage.until(lambda: len(first.stage.chunks) >= 4)
            before = dict(first.stage.tenures)
            async with running(bootstrap, topic, topic) as second:
                await second.stage.until(lambda: len(second.stage.tenures) == 2)
                assert all(before[p].epoch == found.epoch for p, found in first.stage.tenures.items())

    asyncio.run(main())


def test_a_partition_that_comes_back_is_fetched(bootstrap: str, admin: AdminClient) -> None:
    """One that was paused when it was taken away is not paused any more when it is given back."""
    topic = create_topic(admin, "source", 2)
    produce(bootstrap, topic, [Sent(b"k", b"v", partition=n % 2) for n in range(10)])

    async def main() -> None:
        async with running(bootstrap, topic, topic) as first:
            await first.stage.until(lambda: len(first.stage.chunks) >= 2)
            for tenure in first.stage.tenures.values():
                await tenure.pause()
            async with running(bootstrap, topic, topic) as second:
                await second.stage.until(lambda: len(second.stage.tenures) == 1)
                (moved,) = second.stage.tenures
            await first.stage.until(lambda: moved in first.stage.tenures)
            epoch = first.stage.tenures[moved].epoch
            await first.stage.until(lambda: any(c.epoch == epoch for c in first.stage.chunks))

    asyncio.run(main())


def test_a_rewind_fetches_also_what_was_paused(bootstrap: str, admin: AdminClient) -> None:
    """Whoever paused it is gone with the old epoch; nobody else would resume it."""
    topic = create_topic(admin, "source", 1)
    produce(bootstrap, topic, [Sent(b"k", b"v") for _ in range(10)])
    partition = Partition(topic, 0)

    async def main() -> None:
        async with running(bootstrap, topic, topic) as run:
            await run.stage.until(lambda: bool(run.stage.chunks))
            paused = run.stage.tenures[partition]
            await paused.pause()
            again = await paused.rewind()
            await run.stage.until(lambda: run.stage.chunks[-1].epoch == again.epoch)

    asyncio.run(main())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_static_member_that_restarts_gets_its_partitions_back(
    bootstrap: str, admin: AdminClient, protocol: Protocol
) -> None:
    """A restart with the same group.instance.id takes over at what was committed."""
    topic = create_topic(admin, "source", 2)
    produce(bootstrap, topic, [Sent(b"k", b"v", partition=n % 2) for n in range(10)])
    partition = Partition(topic, 0)

    async def main() -> None:
        async with running(bootstrap, topic, topic, protocol, properties={"group.instance.id": "one"}) as run:
            await run.stage.until(lambda: len(run.stage.tenures) == 2)
            await run.stage.tenures[partition].commit(3, "mine")
        async with running(bootstrap, topic, topic, protocol, properties={"group.instance.id": "one"}) as run:
            await run.stage.until(lambda: len(run.stage.tenures) == 2)
            assert run.stage.tenures[partition].position.metadata == "mine"

    asyncio.run(main())


def test_two_live_processes_of_one_instance_do_not_go_on(bootstrap: str, admin: AdminClient) -> None:
    """The member that is fenced by another of the same group.instance.id fails, with an exit code of its
    own.
    """
    topic = create_topic(admin, "source", 1)

    async def main() -> None:
        async with running(bootstrap, topic, topic, properties={"group.instance.id": "one"}) as first:
            await first.stage.until(lambda: bool(first.stage.tenures))
            async with running(bootstrap, topic, topic, properties={"group.instance.id": "one"}):
                await first.stage.until(lambda: bool(first.failures))
        failure = first.failures[0]
        assert isinstance(failure, Fatal)
        assert failure.code == ExitCode.FENCED

    asyncio.run(main())


def test_deleted_records_are_told(bootstrap: str, admin: AdminClient) -> None:
    """A position whose records are deleted while it is read from is reported with what the topic still
    holds.
    """
    topic = create_topic(admin, "source", 1)
    produce(bootstrap, topic, [Sent(b"k", b"v") for _ in range(10)])
    partition = Partition(topic, 0)

    async def main() -> None:
        async with running(bootstrap, topic, topic) as run:
            await run.stage.until(lambda: bool(run.stage.chunks))
            admin.delete_records([TopicPartition(topic, 0, 8)])[TopicPartition(topic, 0)].result(30)
            await run.stage.tenures[partition].rewind(to=2)
            await run.stage.until(lambda: ("missing", (0, 2, 8)) in run.stage.trace)

    asyncio.run(main())


def test_latest_means_when_the_group_began(bootstrap: str, admin: AdminClient) -> None:
    """Under start = latest a partition that gets its first records before anybody reads it loses none of
    them.
    """
    topic = create_topic(admin, "source", 1)
    produce(bootstrap, topic, [Sent(b"k", b"old") for _ in range(5)])
    first = Partition(topic, 0)

    async def main() -> None:
        async with running(bootstrap, topic, topic, start="latest") as run:
            await run.stage.until(lambda: bool(run.stage.tenures))
            assert run.stage.tenures[first].position.offset == 5
            tenure = run.stage.tenures[first]
            await tenure.commit(5, Committed(group_start=tenure.group_start).text())
        admin.create_partitions([NewPartitions(topic, 2)])[topic].result(30)
        produce(bootstrap, topic, [Sent(b"k", b"new", partition=1) for _ in range(3)])
        async with running(bootstrap, topic, topic, start="latest") as run:
            await run.stage.until(lambda: any(c.partition.index == 1 for c in run.stage.chunks))
            assert run.stage.tenures[Partition(topic, 1)].position.offset == 0

    asyncio.run(main())


def test_latest_reads_a_partition_that_is_added_later_from_its_beginning(
    bootstrap: str, admin: AdminClient
) -> None:
    """The partition begins there also if the timestamps of its records are older than the group: a replay, or
    a clock that is wrong."""
    topic = create_topic(admin, "source", 1)
    first = Partition(topic, 0)

    async def main() -> None:
        async with running(bootstrap, topic, topic, start="latest") as run:
            await run.stage.until(lambda: bool(run.stage.tenures))
            tenure = run.stage.tenures[first]
            await tenure.commit(0, Committed(group_start=tenure.group_start).text())
        admin.create_partitions([NewPartitions(topic, 2)])[topic].result(30)
        produce(bootstrap, topic, [Sent(b"k", b"old", partition=1, timestamp_ms=1_700_000_000_000)])
        async with running(bootstrap, topic, topic, start="latest") as run:
            await run.stage.until(lambda: any(c.partition.index == 1 for c in run.stage.chunks))

    asyncio.run(main())


def test_a_commit_that_is_not_answered_in_time_is_fenced(own_broker: Callable[..., KafkaBroker]) -> None:
    """A commit whose outcome is unknown may land later. So the group is left and joined again before any
    other commit, and the caller's work is void."""
    broker = own_broker()
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    topic = create_topic(admin, "source", 1)
    produce(broker.bootstrap_servers, topic, [Sent(b"k", b"v") for _ in range(10)])
    partition = Partition(topic, 0)

    async def main() -> None:
        properties = {"socket.timeout.ms": 2_000, "session.timeout.ms": 9_000}
        async with running(broker.bootstrap_servers, topic, topic, properties=properties) as run:
            await run.stage.until(lambda: bool(run.stage.chunks))
            broker.freeze()
            commit = asyncio.create_task(run.stage.tenures[partition].commit(4, "late"))
            await asyncio.wait([commit], timeout=4.0)  # twice the socket time-out
            broker.thaw()
            with pytest.raises(OwnershipLost):
                await commit
            await run.stage.until(lambda: run.stage.trace.count(("assigned", [0])) == 2)
            assert ("lost", [0]) in run.stage.trace

    asyncio.run(main())


def test_a_member_that_lost_its_session_drops_everything(bootstrap: str, admin: AdminClient) -> None:
    """Who did not poll for longer than max.poll.interval.ms commits nothing any more and starts over."""
    topic = create_topic(admin, "source", 1)
    produce(bootstrap, topic, [Sent(b"k", b"v") for _ in range(10)])
    partition = Partition(topic, 0)
    properties = {"max.poll.interval.ms": 6_000, "session.timeout.ms": 6_000}

    async def main() -> None:
        async with running(bootstrap, topic, topic, properties=properties) as run:
            await run.stage.until(lambda: bool(run.stage.chunks))
            tenure = run.stage.tenures[partition]
            release = asyncio.Event()

            def hang() -> None:
                asyncio.run_coroutine_threadsafe(release.wait(), loop).result()

            loop = asyncio.get_running_loop()
            hanging = asyncio.create_task(run.source._thread.call(hang))
            try:
                async with asyncio.timeout(BOUND):
                    while members(admin, topic):  # noqa: ASYNC110  # the broker's clock decides
                        await asyncio.sleep(0.2)
            finally:
                release.set()
            await hanging
            with pytest.raises(OwnershipLost):
                await tenure.commit(9, "zombie")
            assert metadata_of(bootstrap, topic, partition)[1] != "zombie"
            await run.stage.until(lambda: run.stage.trace.count(("assigned", [0])) == 2)

    asyncio.run(main())


def test_chunks_that_cannot_be_handed_over_end_the_process(bootstrap: str, admin: AdminClient) -> None:
    """If the process went on, nobody would miss them on a topic that stays quiet afterwards."""
    topic = create_topic(admin, "source", 1)

    async def refuse(chunk: Chunk) -> None:
        raise SystemError("nobody foresaw this")

    async def main() -> None:
        async with running(bootstrap, topic, topic) as run:
            run.stage.put = refuse  # type: ignore[method-assign]
            await run.stage.until(lambda: bool(run.stage.tenures))
            produce(bootstrap, topic, [Sent(b"k", b"v")])
            await run.stage.until(lambda: bool(run.failures))
            assert [str(error) for error in run.failures] == ["nobody foresaw this"]

    asyncio.run(main())


def members(admin: AdminClient, group: str) -> int:
    """How many members the group has."""
    return len(admin.describe_consumer_groups([group])[group].result(30).members)


def test_the_broker_says_what_tests_may_ask(admin: AdminClient) -> None:
    """The time-outs that these tests use are allowed by the broker they run on."""
    limits = BrokerLimits.of(admin)
    assert limits.session_ms("classic") <= 6_000
