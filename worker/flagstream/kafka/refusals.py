"""Finds which of a batch's records a topic refuses: Kafka reports a refusal of the whole batch only."""

from collections.abc import Callable, Iterator, Sequence

from flagstream.errors import FlagstreamError

TRIES = 60
"""Transactions that one search may take; the next search finds what is left. *Measured*: 10 ms for one that
is taken, up to half a second for one that is refused.
"""
ALL = 8
"""So many single records refused, and none taken: then it is the topic, not the records."""

Takes = Callable[[Sequence[int]], bool]
"""Whether the topic takes the records with these indexes, together."""


class TopicRefusesAll(FlagstreamError):
    """No record is at fault more than any other."""


def find_refused(count: int, takes: Takes) -> list[int]:
    """The indexes of the records, of ``count``, that ``takes`` refuses, found by halving. Raises
    TopicRefusesAll.
    """
    refused: list[int] = []
    taken = False
    tries = 0
    waiting = [list(range(count))]
    while waiting and tries < TRIES:
        some = waiting.pop()
        tries += 1
        if takes(some):
            taken = True
        elif len(some) > 1:
            half = len(some) // 2
            waiting += [some[half:], some[:half]]
        else:
            refused += some
            if not taken and len(refused) >= ALL:
                raise TopicRefusesAll
    return refused


def find_untimely(times: Sequence[int], now: int, takes: Takes) -> list[int]:
    """The indexes of the records that ``takes`` refuses for their times (ms since the epoch).

    A topic limits how far back and how far ahead of its clock (``now``) a time may be. So of those that lie
    back, all beyond a certain one are refused, and likewise ahead: two searches for a boundary.
    """
    back = sorted((i for i, time in enumerate(times) if time <= now), key=lambda i: -times[i])
    ahead = sorted((i for i, time in enumerate(times) if time > now), key=lambda i: times[i])
    return [*_beyond(back, takes), *_beyond(ahead, takes)]


def _beyond(order: Sequence[int], takes: Takes) -> Iterator[int]:
    """Those of ``order``, the nearest time first, from the first one on that is refused."""
    good, bad = 0, len(order) + 1  # so many from the front are taken; so many are not
    while bad - good > 1:
        middle = (good + bad) // 2
        if takes(order[:middle]):
            good = middle
        else:
            bad = middle
    yield from order[good:]
