"""The chunks of one partition that wait to be cut into windows, and how many more are fetched."""

import math
from collections import deque
from dataclasses import replace

from flagstream.chunk import Chunk
from flagstream.kafka.tenure import Tenure


class Inbox:
    """Takes chunks that join onto each other, from the position of ``tenure`` on, and gives them out in
    slices.

    For example after the chunk ``[4, 10)`` only a chunk that starts at 10 joins.
    """

    def __init__(self, tenure: Tenure) -> None:
        self.expected = tenure.position.offset
        """The offset that the next chunk has to start at: nothing before it may be stepped over."""
        self.paused = False
        """Whether nothing more is fetched."""
        self.waits_for_room = False
        """Whether chunks were given back that have to be fetched again."""
        self._tenure = tenure
        self._chunks: deque[Chunk] = deque()
        self._given_back_to = 0.0
        """Chunks up to this offset may arrive that were under way when those before them were given back."""

    def __len__(self) -> int:
        return len(self._chunks)

    @property
    def given_back(self) -> bool:
        """Whether chunks were given back, and none of them has arrived again."""
        return self._given_back_to > 0

    def add(self, chunk: Chunk) -> bool:
        """Take ``chunk``. Return False if it does not join.

        A chunk that was under way when those before it were given back is released: it is fetched again.
        """
        if chunk.start == self.expected:
            self._given_back_to = 0.0
            self._chunks.append(chunk)
            self.expected = chunk.end
            return True
        chunk.weight.release()
        return chunk.end <= self._given_back_to

    def first(self) -> Chunk:
        """Return what is left of the first chunk. It stays in the inbox until :meth:`taken`."""
        return self._chunks[0]

    def taken(self, count: int, end: int) -> None:
        """Remove ``count`` records of the first chunk, which are in a window that reaches up to the offset
        ``end``.
        """
        chunk = self._chunks[0]
        if count == len(chunk.records):
            self._chunks.popleft().weight.release()
            return
        left = chunk.records[count:]
        chunk.weight.become(chunk.weight.bytes * len(left) // len(chunk.records))
        self._chunks[0] = replace(chunk, start=end, records=left)

    def give_back(self) -> None:
        """Release the chunks that wait, if fetching is paused. They are fetched again when there is room."""
        if self._chunks and self.paused:
            self.expected = self._chunks[0].start
            self._given_back_to = math.inf
            self.waits_for_room = True
            self.clear()

    def clear(self) -> None:
        """Release all chunks."""
        for chunk in self._chunks:
            chunk.weight.release()
        self._chunks.clear()

    async def pause(self) -> None:
        """Fetch nothing more. Raises OwnershipLost."""
        if not self.paused:
            self.paused = True
            await self._tenure.pause()

    async def resume(self) -> None:
        """Fetch again, what was given back first. Raises OwnershipLost."""
        self.paused = False
        if not self.waits_for_room:
            await self._tenure.resume()
            return
        self.waits_for_room = False
        fetched_to = await self._tenure.fetch_again(self.expected)
        if self._given_back_to == math.inf:  # none of them has arrived yet
            self._given_back_to = fetched_to
