"""The consumer's thread: what may be committed, what a rebalance makes void, and leaving the group.

A real thread and a real event loop run around a consumer in memory, which does what each test has scripted.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any, ParamSpec, cast

import pytest
from confluent_kafka import KafkaError, Message

from flagstream.chunk import Chunk, Partition, Position
from flagstream.errors import ExitCode, Fatal, OwnershipLost
from flagstream.kafka import rejoining
from flagstream.kafka.consumer import ConsumerThread
from flagstream.kafka.consumer_settings import ConsumerSettings
from flagstream.kafka.tenure import Tenure, rewind
from flagstream.memory import MemoryShare
from tests.unit.kafka.fake_consumer import TOPIC, FakeConsumer, records

FIRST, SECOND = Partition(TOPIC, 0), Partition(TOPIC, 1)
P = ParamSpec("P")
BOUND = 30.0
"""Seconds that anything here may take; only reached when it fails."""


@dataclass
class RecordingStage:
    """A stage that keeps its tenures and chunks, and does what a test wants in a revoke."""

    tenures: dict[Partition, Tenure] = field(default_factory=dict)
    chunks: list[tuple[int, int, int, int]] = field(default_factory=list)
    """The partition, the epoch and the offsets `[start, end)` of each."""
    lost_partitions: list[Partition] = field(default_factory=list)
    missing: list[Position] = field(default_factory=list)
    on_revoke: Callable[[], Awaitable[object]] | None = None
    on_loss: Callable[[], Awaitable[object]] | None = None

    async def assigned(self, tenures: Collection[Tenure]) -> None:
        self.tenures.update({tenure.partition: tenure for tenure in tenures})

    async def revoked(self, partitions: Collection[Partition]) -> None:
        if self.on_revoke is not None:
            await self.on_revoke()

    async def lost(self, partitions: Collection[Partition]) -> None:
        if self.on_loss is not None:
            await self.on_loss()
        self.lost_partitions += partitions

    async def records_missing(self, tenure: Tenure, position: Position) -> None:
        self.missing.append(position)

    async def put(self, chunk: Chunk) -> None:
        self.chunks.append((chunk.partition.index, chunk.epoch, chunk.start, chunk.end))


def on_a_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test as the main task of an event loop."""

    @wraps(test)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        asyncio.run(test(*arguments, **named))

    return run


class Rig:
    """A consumer's thread between a consumer in memory and a recorded stage."""

    def __init__(self, consumer: FakeConsumer) -> None:
        self.consumer = consumer
        self.stage = RecordingStage()
        self.failures: list[BaseException] = []
        self.thread = ConsumerThread(
            ConsumerSettings("test", {"group.id": "g"}, TOPIC, "beginning", 45.0),
            put=self.stage.put,
            stage=self.stage,
            fail=self.failures.append,
            memory=MemoryShare(),
            beside=lambda: 0,
        )

    async def consumes(self, step: Callable[[], list[Message] | None]) -> None:
        """The next `consume()` does this. Returns when the thread has dealt with what that returned."""
        self.consumer.script.put(step)
        await self.polled()

    async def polled(self) -> None:
        """Wait until the thread has polled once more, with everything scripted done."""
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def last() -> list[Message]:
            loop.call_soon_threadsafe(done.set)
            return []

        self.consumer.script.put(last)
        async with asyncio.timeout(BOUND):
            await done.wait()

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the thread poll until the condition holds."""
        async with asyncio.timeout(BOUND):
            while not condition():
                await self.polled()

    async def begun(self, *indexes: int) -> list[Tenure]:
        """The tenures of partitions that the group has just given."""
        await self.consumes(lambda: self.consumer.gain(*indexes))
        return [self.stage.tenures[Partition(TOPIC, index)] for index in indexes]

    async def fails_with(self, code: int) -> None:
        """The next `consume()` returned this error for the first partition."""
        error = cast(Message, ErrorMessage(code))
        await self.thread.call(lambda: self.thread._on_message_error(error))

    @property
    def commits(self) -> list[tuple[object, ...]]:
        return [step for step in self.consumer.trace if step[0] == "commit"]


@asynccontextmanager
async def running(monkeypatch: pytest.MonkeyPatch, *, fails: bool = False) -> AsyncIterator[Rig]:
    """Run a thread, and stop it at the end. It must not have failed unless it is meant to."""
    consumer = FakeConsumer()
    monkeypatch.setattr("flagstream.kafka.consumer.Consumer", lambda properties, logger: consumer)
    monkeypatch.setattr("flagstream.kafka.start_positions.RETRY_SECONDS", 0.001)
    rig = Rig(consumer)
    rig.thread.start()
    try:
        yield rig
    finally:
        await asyncio.to_thread(rig.thread.stop)
        await asyncio.sleep(0)
    assert bool(rig.failures) == fails, rig.failures
    assert consumer.trace[-1] == ("close",)


# ── commits ───────────────────────────────────────────────────────────────────────────────────────────────


@on_a_loop
async def test_a_commit_carries_its_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit carries the metadata of the stage."""
    async with running(monkeypatch) as rig:
        [tenure] = await rig.begun(0)

        await tenure.commit(5, "a plan")

        assert rig.commits == [("commit", 0, 5, "a plan")]


@on_a_loop
async def test_a_tenure_that_is_over_commits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenure that a loss or a rewind has ended raises OwnershipLost, also after the partition has come
    back.
    """
    async with running(monkeypatch) as rig:
        [first, second] = await rig.begun(0, 1)
        await rig.consumes(lambda: rig.consumer.lose(0))
        await second.rewind()

        for tenure in (first, second):
            with pytest.raises(OwnershipLost):
                await tenure.commit(5, "")
            with pytest.raises(OwnershipLost):
                await tenure.pause()
            with pytest.raises(OwnershipLost):
                await tenure.rewind()
        await rig.begun(0)
        with pytest.raises(OwnershipLost):
            await first.commit(5, "")

        assert rig.commits == []
        assert rig.stage.lost_partitions == [FIRST]


@on_a_loop
async def test_the_check_and_the_commit_are_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The group takes everything away as soon as the thread has served one call: whatever is committed was
    committed before that.
    """
    async with running(monkeypatch) as rig:
        [first] = await rig.begun(0)
        after_the_next_call(rig, lambda: rig.consumer.lose(0))

        await asyncio.gather(first.commit(5, ""), return_exceptions=True)

        assert steps(rig, "commit", "lost") == ["commit", "lost"]


@on_a_loop
async def test_the_check_and_the_groups_metadata_are_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """With metadata of before the loss the group's coordinator refuses the offsets; with metadata of after
    it, for instance when the partition came back meanwhile, they would be committed over those of the next
    owner.
    """
    async with running(monkeypatch) as rig:
        first, second = await rig.begun(0, 1)
        after_the_next_call(rig, lambda: rig.consumer.lose(0, 1))

        await asyncio.gather(first.group_metadata(second), return_exceptions=True)

        assert steps(rig, "metadata", "lost") == ["metadata", "lost"]


@on_a_loop
async def test_metadata_needs_every_epoch_and_is_asked_for_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The group's metadata holds the member's generation, so it is read each time, and refused if one tenure
    is over.
    """
    async with running(monkeypatch) as rig:
        first, second = await rig.begun(0, 1)

        assert [await first.group_metadata(second), await first.group_metadata(second)] == [
            "member 1",
            "member 2",
        ]

        await second.rewind()
        with pytest.raises(OwnershipLost):
            await first.group_metadata(second)
        assert rig.consumer.members == 2


NOT_LOST = [KafkaError.ILLEGAL_GENERATION, KafkaError.STALE_MEMBER_EPOCH, KafkaError.REBALANCE_IN_PROGRESS]


@pytest.mark.parametrize("code", NOT_LOST)
@on_a_loop
async def test_a_commit_during_a_rebalance_is_repeated_the_same(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A commit that a rebalance interrupts is repeated unchanged, and nothing is dropped."""
    async with running(monkeypatch) as rig:
        [tenure] = await rig.begun(0)
        rig.consumer.commit_errors.extend([code, code])

        await tenure.commit(5, "a plan")

        assert rig.commits == [("commit", 0, 5, "a plan")] * 3
        assert steps(rig, "unsubscribe") == []
        await tenure.commit(6, "")


@on_a_loop
async def test_a_commit_that_is_repeated_is_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeated commit checks its epoch again, as the rebalance may have taken the partition away."""
    async with running(monkeypatch) as rig:
        [tenure] = await rig.begun(0)
        rig.consumer.commit_errors.append(KafkaError.REBALANCE_IN_PROGRESS)

        commit = asyncio.create_task(tenure.commit(5, ""))
        await rig.until(lambda: rig.commits)
        await rig.consumes(lambda: rig.consumer.lose(0))
        await asyncio.gather(commit, return_exceptions=True)

        assert steps(rig, "commit", "lost")[-1] == "lost"


@pytest.mark.parametrize(
    "code", [KafkaError.UNKNOWN_MEMBER_ID, KafkaError._TIMED_OUT, KafkaError.GROUP_AUTHORIZATION_FAILED]
)
@on_a_loop
async def test_a_commit_of_unknown_outcome_drops_all_and_joins_again(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A copy of it may land later. So nothing is held any more, of other partitions neither, and the group is
    left and joined again before anything else is committed.
    """
    async with running(monkeypatch) as rig:
        first, second = await rig.begun(0, 1)
        rig.consumer.commit_errors.append(code)

        with pytest.raises(OwnershipLost):
            await first.commit(5, "")
        with pytest.raises(OwnershipLost):
            await second.commit(5, "")
        await rig.until(lambda: steps(rig, "subscribe") == ["subscribe"] * 2)

        assert steps(rig, "commit", "subscribe", "unsubscribe") == [
            "subscribe",
            "commit",
            "unsubscribe",
            "subscribe",
        ]
        assert sorted(rig.stage.lost_partitions) == [FIRST, SECOND]
        [again] = await rig.begun(0)
        await again.commit(5, "")
        assert (rig.thread.rejoining.count, rig.thread.rejoining.reason) == (0, KafkaError(code).name())


@on_a_loop
async def test_a_commit_that_takes_too_long_counts_as_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """librdkafka may have sent it twice: the second copy may land after a newer one."""
    async with running(monkeypatch) as rig:
        [tenure] = await rig.begun(0)
        monkeypatch.setattr(ConsumerSettings, "commit_limit", property(lambda settings: 0.0))

        with pytest.raises(OwnershipLost, match="slow"):
            await tenure.commit(5, "")

        await rig.until(lambda: steps(rig, "unsubscribe"))
        assert rig.stage.lost_partitions == [FIRST]


@on_a_loop
async def test_who_joins_again_and_again_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of joins is counted, and a commit that succeeds ends it."""
    monkeypatch.setattr(rejoining, "FIRST_PAUSE", 0.001)
    async with running(monkeypatch) as rig:
        for count in (1, 2, 3):
            [tenure] = await rig.begun(0)
            rig.consumer.commit_errors.append(KafkaError.UNKNOWN_MEMBER_ID)
            with pytest.raises(OwnershipLost):
                await tenure.commit(5, "")
            await rig.until(partial(has_joined, rig, count + 1))
            assert rig.thread.rejoining.count == count
        [tenure] = await rig.begun(0)
        await tenure.commit(5, "")
        assert rig.thread.rejoining.count == 0


@on_a_loop
async def test_a_member_that_is_fenced_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member whose group.instance.id another process uses ends its process."""
    async with running(monkeypatch, fails=True) as rig:
        [tenure] = await rig.begun(0)
        rig.consumer.commit_errors.append(KafkaError.FENCED_INSTANCE_ID)

        with pytest.raises(Fatal):
            await tenure.commit(5, "")
        rig.consumer.script.put(lambda: rig.thread.reports.error(KafkaError(KafkaError.FENCED_INSTANCE_ID)))
        async with asyncio.timeout(BOUND):
            while not rig.failures:  # noqa: ASYNC110  # the thread ends by itself
                await asyncio.sleep(0.001)
        [failure] = rig.failures
        assert isinstance(failure, Fatal)
        assert failure.code == ExitCode.FENCED


# ── rebalances and rewinds ────────────────────────────────────────────────────────────────────────────────


@on_a_loop
async def test_a_revoke_may_commit_until_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread serves calls while a revoke waits, so that the stage can commit until it returns."""
    async with running(monkeypatch) as rig:
        [tenure] = await rig.begun(0)
        rig.stage.on_revoke = lambda: tenure.commit(7, "bye")

        await rig.consumes(lambda: rig.consumer.give_up(0))

        assert steps(rig, "commit", "unassign", "revoked") == ["commit", "unassign", "revoked"]
        with pytest.raises(OwnershipLost):
            await tenure.commit(8, "")


@on_a_loop
async def test_nothing_is_committed_while_a_stage_hears_of_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """The partition has another owner by then, whose offset the commit would overwrite."""
    async with running(monkeypatch) as rig:
        [tenure] = await rig.begun(0)
        rig.stage.on_loss = lambda: tenure.commit(7, "")

        await rig.consumes(lambda: rig.consumer.lose(0))

        assert rig.commits == []


@on_a_loop
async def test_records_that_come_with_a_rebalance_are_void(monkeypatch: pytest.MonkeyPatch) -> None:
    """The `consume()` that runs callbacks may return records of a tenure that ended inside: the partition was
    taken away and came back further on. All that is held is fetched again.
    """
    async with running(monkeypatch) as rig:
        await rig.begun(0, 1)
        await rig.consumes(lambda: records(0, 0, 3))
        rig.consumer.committed_offsets[0] = (2, "")

        def taken_and_given() -> list[Message]:
            rig.consumer.give_up(0)
            rig.consumer.gain(0)
            return records(0, 3, 9) + records(1, 0, 2)

        await rig.consumes(taken_and_given)
        assert [(index, start, end) for index, _, start, end in rig.stage.chunks] == [(0, 0, 3)]
        assert sorted(step for step in rig.consumer.trace if step[0] == "seek") == [
            ("seek", 0, 2),
            ("seek", 1, 0),
        ]

        await rig.consumes(lambda: records(0, 2, 9) + records(1, 0, 2))
        await rig.until(lambda: len(rig.stage.chunks) == 3)
        epoch = rig.stage.tenures[FIRST].epoch
        assert rig.stage.chunks[1:] == [(0, epoch, 2, 9), (1, rig.stage.tenures[SECOND].epoch, 0, 2)]


@pytest.mark.parametrize("happens", ["gain", "give_up", "lose"])
@on_a_loop
async def test_every_callback_makes_what_comes_with_it_void(
    monkeypatch: pytest.MonkeyPatch, happens: str
) -> None:
    """Records that come with a callback are void, whichever partition the callback is about."""
    async with running(monkeypatch) as rig:
        await rig.begun(0, 1)

        def callback() -> list[Message]:
            getattr(rig.consumer, happens)(2 if happens == "gain" else 1)
            return records(0, 4, 9)

        await rig.consumes(callback)
        await rig.polled()

        assert rig.stage.chunks == []
        assert ("seek", 0, 0) in rig.consumer.trace


@on_a_loop
async def test_records_from_before_a_rewind_inside_a_callback_are_void(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stage rewinds one partition while it gives up another: what that `consume()` returns was fetched
    before, at offsets that lie after the new position.
    """
    async with running(monkeypatch) as rig:
        first, _ = await rig.begun(0, 1)
        await rig.consumes(lambda: records(0, 0, 5))
        rig.stage.on_revoke = first.rewind

        def give_up_the_other() -> list[Message]:
            rig.consumer.give_up(1)
            return records(0, 5, 9)

        await rig.consumes(give_up_the_other)
        await rig.polled()

        assert [(index, start, end) for index, _, start, end in rig.stage.chunks] == [(0, 0, 5)]
        assert ("seek", 0, 0) in rig.consumer.trace


@on_a_loop
async def test_a_rewind_starts_at_the_committed_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rewind starts a new epoch at the committed offset, with its metadata, or at the offset that is asked
    for.
    """
    async with running(monkeypatch) as rig:
        [first] = await rig.begun(0)
        await first.commit(4, "a plan")
        await rig.consumes(lambda: records(0, 0, 9))

        again = await first.rewind()
        assert (again.position.offset, again.position.committed, again.position.metadata) == (4, 4, "a plan")
        assert again.epoch != first.epoch
        assert rig.consumer.trace[-1] == ("seek", 0, 4)

        further = await again.rewind(7)
        assert (further.position.offset, further.position.committed) == (7, 4)
        assert rig.consumer.trace[-1] == ("seek", 0, 7)
        await rig.consumes(lambda: records(0, 4, 7))
        await rig.consumes(lambda: records(0, 7, 9))
        await rig.until(lambda: len(rig.stage.chunks) == 2)
        assert rig.stage.chunks[-1] == (0, further.epoch, 7, 9)


@on_a_loop
async def test_several_tenures_rewind_with_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tenures rewind together; one that is over is left out."""
    async with running(monkeypatch) as rig:
        first, second = await rig.begun(0, 1)
        await rig.consumes(lambda: rig.consumer.lose(1))

        [again] = await rewind([first, second])

        assert again.partition == FIRST
        assert await rewind([first, second]) == []
        assert await rewind([]) == []


@pytest.mark.parametrize("code", [KafkaError._TIMED_OUT, KafkaError.COORDINATOR_LOAD_IN_PROGRESS])
@on_a_loop
async def test_an_error_of_one_committed_offset_is_not_taken_for_none(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """If the answer for one partition is an error, all are asked for again: without an offset it would be
    read from its start.
    """
    async with running(monkeypatch) as rig:
        rig.consumer.committed_offsets = {0: (5, ""), 1: (6, "")}
        rig.consumer.offset_errors.append({1: code})

        first, second = await rig.begun(0, 1)

        assert (first.position.offset, second.position.offset) == (5, 6)


# ── fetching ──────────────────────────────────────────────────────────────────────────────────────────────


@on_a_loop
async def test_a_partition_is_fetched_again_where_its_last_chunk_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A resume seeks to the end of the last chunk, as librdkafka may have dropped what it had fetched."""
    async with running(monkeypatch) as rig:
        [tenure] = await rig.begun(0)
        await rig.consumes(lambda: records(0, 0, 3))

        await tenure.pause()
        await tenure.resume()
        assert rig.consumer.trace[-3:] == [("pause", 0), ("resume", 0), ("seek", 0, 3)]
        await tenure.resume()
        assert rig.consumer.trace[-1] == ("seek", 0, 3)


@on_a_loop
async def test_chunks_that_were_given_back_are_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that were given back are fetched again. The stage learns up to where chunks may still arrive."""
    async with running(monkeypatch) as rig:
        [tenure] = await rig.begun(0)
        await rig.consumes(lambda: records(0, 0, 9))
        await tenure.pause()

        assert await tenure.fetch_again(4) == 9

        assert rig.consumer.trace[-2:] == [("resume", 0), ("seek", 0, 4)]
        await rig.consumes(lambda: records(0, 4, 6))
        await rig.until(lambda: len(rig.stage.chunks) == 2)
        assert rig.stage.chunks[-1][2:] == (4, 6)


@on_a_loop
async def test_nothing_is_fetched_once_the_process_is_about_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a stop nothing is fetched, although there is room and the stage resumes a partition."""
    async with running(monkeypatch) as rig:
        [tenure] = await rig.begun(0)
        await tenure.pause()

        await rig.thread.call(rig.thread.finish)
        await tenure.resume()
        for _ in range(3):
            await rig.polled()

        assert rig.consumer.trace[-1] == ("pause", 0)


# ── what librdkafka reports ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class ErrorMessage:
    """What `consume()` returns in place of a record."""

    code: int
    index: int = 0

    def error(self) -> KafkaError:
        return KafkaError(self.code)

    def partition(self) -> int:
        return self.index

    def topic(self) -> str:
        return TOPIC


@on_a_loop
async def test_records_that_are_gone_are_reported_with_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleted records are reported to the stage with the next offset and the offsets that the topic holds."""
    async with running(monkeypatch) as rig:
        await rig.begun(0)
        await rig.consumes(lambda: records(0, 0, 3))
        rig.consumer.low, rig.consumer.high = 8, 20

        await rig.fails_with(KafkaError.OFFSET_OUT_OF_RANGE)

        [position] = rig.stage.missing
        assert (position.offset, position.low, position.high) == (3, 8, 20)
        assert position.epoch == rig.stage.tenures[FIRST].epoch


@on_a_loop
async def test_an_error_of_an_offset_from_before_a_rewind_is_not_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If the topic holds the next record, an error of an earlier offset is not reported, and the partition is
    sought.
    """
    async with running(monkeypatch) as rig:
        await rig.begun(0)

        await rig.fails_with(KafkaError._AUTO_OFFSET_RESET)

        assert rig.stage.missing == []
        assert rig.consumer.trace[-1] == ("seek", 0, 0)


# ── helpers ───────────────────────────────────────────────────────────────────────────────────────────────


def steps(rig: Rig, *names: str) -> list[str]:
    """The names of the steps in the trace, of those that are asked about."""
    return [step[0] for step in rig.consumer.trace if step[0] in names]


def has_joined(rig: Rig, times: int) -> bool:
    """Whether the group was joined so many times."""
    return len(steps(rig, "subscribe")) == times


def after_the_next_call(rig: Rig, happens: Callable[[], None]) -> None:
    """Have something happen in the group, inside of a `consume()`, right after the thread has served the next
    call of the event loop, and before it serves another.
    """
    calls = rig.thread.calls
    call = calls.call

    async def call_once(function: Callable[[], object]) -> object:
        calls.call = call  # type: ignore[method-assign]

        def then() -> object:
            answer = function()
            rig.consumer.script.put(happens)
            return answer

        answer = await call(then)
        await rig.polled()
        return answer

    calls.call = call_once  # type: ignore[method-assign,assignment]
