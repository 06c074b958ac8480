"""A tenure: one partition that a stage holds in one epoch, and all that the stage may do with it.

The chunk source makes tenures and hands them to its stage: on every assignment and after every rewind. Each
has an epoch of its own. Work that belongs to an earlier tenure of the partition commits nothing: the
consumer's thread checks the epoch and commits in one step, so that no rebalance can come in between.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from flagstream.chunk import Partition, Position
from flagstream.errors import OwnershipLost
from flagstream.kafka.commit_metadata import GroupStart
from flagstream.kafka.progress import Progress
from flagstream.operate.retry import Backoff

T = TypeVar("T")

FIRST_COMMIT_PAUSE, LONGEST_COMMIT_PAUSE = 0.02, 0.5
"""Seconds between tries of a commit that waits for the end of a rebalance. Meanwhile the consumer's thread
polls, and so takes part in the rebalance.
"""


class Stage(Protocol):
    """What consumes the chunks of a source. The source calls all methods on the event loop; the consumer's
    thread waits for each of them.
    """

    async def assigned(self, tenures: Collection["Tenure"]) -> None:
        """The group gives these partitions to this member. Their chunks come after this has returned."""
        ...

    async def revoked(self, partitions: Collection[Partition]) -> None:
        """The group takes these partitions away, and waits: they may be committed until this returns."""
        ...

    async def lost(self, partitions: Collection[Partition]) -> None:
        """These partitions are gone already: the stage drops their work. Nothing of it can be committed."""
        ...

    async def records_missing(self, tenure: "Tenure", position: Position) -> None:
        """The topic does not hold the record at ``position.offset``, the next one of the partition, but the
        offsets from ``position.low`` to ``position.high``. The stage decides how the partition goes on.
        """
        ...


class Holder(Protocol):
    """What a tenure asks of the consumer that holds the partition, and of its thread.

    The thread runs the methods that take an epoch; a tenure passes them to :meth:`call`. They raise
    OwnershipLost if the partition is not held in that epoch.
    """

    @property
    def group(self) -> str: ...
    @property
    def group_start(self) -> GroupStart | None: ...
    @property
    def fresh(self) -> bool: ...
    @property
    def progress(self) -> Progress: ...
    async def call(self, function: Callable[[], T]) -> T: ...
    def commit(self, partition: Partition, epoch: int, offset: int, metadata: str) -> bool: ...
    def group_metadata(self, epochs: Mapping[Partition, int]) -> Any: ...
    def rewind(self, epochs: Mapping[Partition, int], to: int | None) -> Mapping[Partition, Position]: ...
    def pause(self, partition: Partition, epoch: int) -> None: ...
    def resume(self, partition: Partition, epoch: int, start: int | None = None) -> int: ...


class Tenure:
    """The right to work on ``partition`` from ``position`` on, until the partition is lost or rewound.

    Only the chunk source makes one. Stages call the methods on the event loop; every asynchronous one raises
    OwnershipLost when the tenure is over. Then the stage drops its work for the partition: whoever holds it
    next reads what is committed.
    """

    __slots__ = ("_holder", "partition", "position")

    def __init__(self, partition: Partition, position: Position, holder: Holder) -> None:
        self.partition = partition
        self.position = position
        self._holder = holder

    def __repr__(self) -> str:
        return f"Tenure({self.partition}, {self.position})"

    @property
    def epoch(self) -> int:
        """Return the epoch of the tenure's chunks."""
        return self.position.epoch

    @property
    def group(self) -> str:
        """Return the name of the consumer group."""
        return self._holder.group

    @property
    def group_start(self) -> GroupStart | None:
        """When the group began, if it began at "latest". Belongs into the metadata of every commit."""
        return self._holder.group_start

    @property
    def fresh(self) -> bool:
        """Whether the last poll is younger than the session time-out, so that the group cannot have given the
        partition to another member. No delivery starts otherwise.
        """
        return self._holder.fresh

    async def commit(self, offset: int, metadata: str) -> None:
        """Commit ``offset`` with ``metadata``. Returns when Kafka has confirmed it."""
        backoff = Backoff(FIRST_COMMIT_PAUSE, LONGEST_COMMIT_PAUSE)
        while not await self._holder.call(  # noqa: ASYNC110  # Kafka decides when the rebalance is over
            lambda: self._holder.commit(self.partition, self.epoch, offset, metadata)
        ):
            await asyncio.sleep(backoff.next_pause())

    def committed_in_transaction(self, offset: int) -> None:
        """Report that a transaction has committed ``offset``, so that lag and age are right."""
        self._holder.progress.committed(self.partition, offset)

    async def group_metadata(self, *others: "Tenure") -> Any:
        """Return the group's metadata for a transaction with work of this tenure and of ``others``.

        The epochs of all of them are checked in the step that reads the metadata.
        """
        epochs = _epochs([self, *others])
        return await self._holder.call(lambda: self._holder.group_metadata(epochs))

    async def rewind(self, to: int | None = None) -> "Tenure":
        """Start again at the committed offset, or at ``to``, in the tenure that is returned.

        This tenure is over, and its chunks are void.
        """
        for tenure in await rewind([self], to):
            return tenure
        raise OwnershipLost(f"{self.partition} is no longer held in epoch {self.epoch}")

    async def pause(self) -> None:
        """Fetch nothing more. Chunks that were fetched before still arrive."""
        await self._holder.call(lambda: self._holder.pause(self.partition, self.epoch))

    async def resume(self) -> None:
        """Fetch again, from the end of the last chunk on."""
        await self._holder.call(lambda: self._holder.resume(self.partition, self.epoch))

    async def fetch_again(self, start: int) -> int:
        """Fetch again, from ``start`` on: the first offset of chunks that the stage gave back.

        Returns where the last chunk ended. Chunks up to there may have been under way; they arrive before the
        one that begins at ``start``.
        """
        return await self._holder.call(lambda: self._holder.resume(self.partition, self.epoch, start))


async def rewind(tenures: Iterable[Tenure], to: int | None = None) -> list[Tenure]:
    """Start all of ``tenures`` (of one stage) again, as :meth:`Tenure.rewind` does; Kafka is asked once.

    Returns the new tenures. A partition that is not held any more has none.
    """
    given = list(tenures)
    if not given:
        return []
    holder, epochs = given[0]._holder, _epochs(given)
    found = await holder.call(lambda: holder.rewind(epochs, to))
    return [Tenure(partition, position, holder) for partition, position in found.items()]


def _epochs(tenures: Iterable[Tenure]) -> dict[Partition, int]:
    return {tenure.partition: tenure.epoch for tenure in tenures}
