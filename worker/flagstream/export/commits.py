"""What is committed of one partition in one tenure: the offset, and the metadata beside it."""

from collections.abc import Callable
from dataclasses import replace

from flagstream.chunk import Partition
from flagstream.export.windows import ClosedWindow
from flagstream.kafka.commit_metadata import Committed, Division, Plan
from flagstream.kafka.tenure import Tenure


class PartitionCommits:
    """Commits for one export, and the metadata of each commit. ``committed`` is called with the partition and
    the offset after each commit.

    All methods that commit raise OwnershipLost when the tenure is over.
    """

    def __init__(self, tenure: Tenure, committed: Callable[[Partition, int], None]) -> None:
        self.tenure = tenure
        self.origin = tenure.position
        """Where the export begins. ``committed`` is None in it if the sink was never asked what it holds."""
        self.topic_id = ""
        """The id of the topic that the records belong to; empty while Kafka has not reported it."""
        self.planned: ClosedWindow | None = None
        """The window whose plan the last commit carried."""
        self._committed = committed

    def take_over(self) -> Committed:
        """Return the metadata beside the offset that the tenure begins at. Raises MetadataUnreadable."""
        found = Committed.parse(self.origin.metadata)
        if found.unasked(self.origin.committed):
            self.origin = replace(self.origin, committed=None)
        return found

    def rediscovered(self, window: ClosedWindow) -> bool:
        """Return whether ``window`` is the one that was found after the group's offsets were lost.

        It needs no plan, since the sink holds it. Nothing may be committed before a delivery has shown that
        it is a window of this topic.
        """
        return self.origin.committed is None and window.held

    async def start(self, range_start: int, *, asked: bool = True) -> None:
        """Commit where the export begins, if the group started at "latest": that is decided only once.

        ``asked`` False: the sink could not be asked yet what it holds. Then the next owner asks it as if
        nothing were committed.
        """
        origin = self.origin
        if origin.committed is None and self.tenure.group_start is not None:
            named = None if range_start == origin.offset and asked else range_start
            await self.offset(origin.offset, self._text(named, None))

    async def plan(self, window: ClosedWindow, division: Division | None = None) -> None:
        """Commit the intention to deliver ``window``, beside the offset that is committed already."""
        named = None if window.range.start == window.position else window.range.start
        await self.offset(window.position, self._text(named, window, division))

    async def end(self, window: ClosedWindow, following: ClosedWindow | None) -> None:
        """Commit the end of ``window`` with the plan of the window after it, if there is ``following``."""
        await self.offset(window.range.end, self.end_text(window, following))
        self.planned = following

    async def offset(self, offset: int, text: str) -> None:
        """Commit ``offset`` with the metadata ``text``."""
        await self.tenure.commit(offset, text)
        self._committed(self.tenure.partition, offset)

    def end_text(self, window: ClosedWindow, following: ClosedWindow | None) -> str:
        """Return the metadata beside the end of ``window``."""
        named = None if window.next_start == window.range.end else window.next_start
        return self._text(named, following)

    def _text(
        self, range_start: int | None, planned: ClosedWindow | None, division: Division | None = None
    ) -> str:
        plan = None
        if planned is not None and planned.manifest is not None:
            manifest = planned.manifest
            plan = Plan(
                manifest.range.end,
                manifest.records,
                manifest.digest,
                manifest.config,
                planned.unknown,
                division,
            )
        return Committed(
            plan,
            range_start=range_start,
            topic_id=self.topic_id,
            group_start=self.tenure.group_start,
        ).text()
