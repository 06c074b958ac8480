"""Which ingest topic the stage reads: one that was deleted and created again has another id, and other
records.
"""

import asyncio
from collections.abc import Callable, Iterable

from flagstream.chunk import Partition, Position
from flagstream.errors import OwnershipLost
from flagstream.kafka.commit_metadata import Committed, MetadataUnreadable
from flagstream.kafka.tenure import Tenure
from flagstream.kafka.topic_id import TopicIdentity, differ

TOPIC_ID_SECONDS = 2.0
"""How long a commit waits for the topic's id; *measured*: 1 ms."""


class IngestTopic:
    """The topic ``name``, and the id under which each partition of it is read."""

    def __init__(self, name: str) -> None:
        self.ask: Callable[[], str] = lambda: ""
        """The blocking call that returns the topic's id: see :class:`TopicIdentity`. Set before any use."""
        self._name = name
        self._identity = TopicIdentity(self._asked)
        self._asking: asyncio.Task[str] | None = None
        self._ids: dict[Partition, str] = {}

    def _asked(self) -> str:
        return self.ask()

    async def id(self) -> str:
        """Return the topic's id, or "" if the brokers do not report it in time.

        Brokers that are away must not hold up more than they do anyway: the next commit asks again.
        """
        asking = self._asking
        if asking is None or asking.done():
            asking = self._asking = asyncio.create_task(self._identity.now())
        done, _ = await asyncio.wait([asking], timeout=TOPIC_ID_SECONDS)
        return asking.result() if done else ""

    async def check(self, partitions: Iterable[Partition]) -> None:
        """Runs before anything of ``partitions`` is committed, and so after it was fetched.

        Raises OwnershipLost if the topic was created again meanwhile: what is read from then on are other
        records, and the first of them may have been stepped over.
        """
        now = await self.id()
        for partition in partitions:
            before = self._ids.get(partition, "")
            if differ(before, now):
                raise OwnershipLost(f"{self._name} was recreated; its id is {now} now")
            self._ids[partition] = before or now

    async def recreated(self, tenure: Tenure) -> tuple[str, str] | None:
        """Return the ids (before, now) if the tenure's committed offset belongs to an earlier topic of the
        name. Else keep the id for the partition's commits. Raises MetadataUnreadable.
        """
        before = Committed.parse(tenure.position.metadata).topic_id
        now = await self.id()
        if differ(before, now):
            return before, now
        self._ids[tenure.partition] = now or before
        return None

    def known_id(self, partition: Partition, position: Position) -> str:
        """Return the id of the topic that the partition was read from up to ``position``, or ""."""
        if known := self._ids.get(partition, ""):
            return known
        try:
            return Committed.parse(position.metadata).topic_id
        except MetadataUnreadable:
            return ""

    def metadata(self, tenure: Tenure) -> str:
        """Return the metadata for an offset of the tenure."""
        topic_id = self._ids.get(tenure.partition, "")
        return Committed(topic_id=topic_id, group_start=tenure.group_start).text()

    def forget(self, partition: Partition) -> None:
        """The partition is not held any more."""
        self._ids.pop(partition, None)
