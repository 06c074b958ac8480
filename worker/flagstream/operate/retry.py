"""Trying again: the pauses between tries, and the loop of a call that waits for something to be there."""

import asyncio
import random
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
E = TypeVar("E", bound=Exception)


class Backoff:
    """How long to wait before the next try: the pause doubles from ``first`` up to ``longest`` seconds.

    Each pause is shortened by a random part of up to a half, so that the workers of a fleet do not knock at
    the same moment. ``turns`` counts the pauses since the start or the last :meth:`reset`. Neither the event
    loop nor a thread is needed: the caller sleeps. An instance belongs to one loop at a time.
    """

    def __init__(
        self, first: float, longest: float, *, chance: Callable[[float, float], float] = random.uniform
    ) -> None:
        self.turns = 0
        self._first = self._next = first
        self._longest = longest
        self._chance = chance

    def next_pause(self, at_least: float = 0.0) -> float:
        """Return the seconds to wait now, never fewer than ``at_least`` (what the other side asked for)."""
        self.turns += 1
        pause = self._next
        self._next = min(pause * 2, self._longest)
        return max(pause * self._chance(0.5, 1.0), at_least)

    def reset(self) -> None:
        """Begin with the shortest pause again: the work succeeded."""
        self.turns = 0
        self._next = self._first


async def retry_until_ready(
    ask: Callable[[], T], passing: tuple[type[E], ...], failed: Callable[[E], None], pauses: Backoff
) -> T:
    """Call ``ask`` in a thread until it returns, and return its answer.

    After an error of the classes ``passing``, ``failed`` is called with it on the event loop, and the next
    try follows after a pause. Any other error is raised.
    """
    while True:
        try:
            return await asyncio.to_thread(ask)
        except passing as error:
            failed(error)
        await asyncio.sleep(pauses.next_pause())
