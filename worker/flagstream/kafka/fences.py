"""Whether a fence shows another holder of a transactional.id, or only that Kafka ended the transaction."""

from collections.abc import Callable

from confluent_kafka import KafkaError

from flagstream.errors import ExitCode, Fatal
from flagstream.librdkafka_text import words
from flagstream.operate.sleeping import STILL_SECONDS

TROUBLE_SECONDS = 60.0
"""So long after any trouble with the brokers a fence is put down to it, rather than to another holder of the
id: failovers come in series, as brokers are restarted one after the other.
"""
FENCES, FENCES_SECONDS = 5, 300.0
"""So many fences within so many seconds show another holder in any case: both register in turn."""


class Fences:
    """Judges the fences of the transactional.id ``name``, whose transactions time out after ``timeout``
    seconds. ``clock`` is monotonic; ``stood_still_since(then, seconds)`` returns whether the process stood
    still for more than ``seconds`` after ``then``.
    """

    def __init__(
        self,
        name: str,
        timeout: float,
        clock: Callable[[], float],
        stood_still_since: Callable[[float, float], bool],
    ) -> None:
        self._name = name
        self._timeout = timeout
        self._clock = clock
        self._stood_still_since = stood_still_since
        self._seen: list[float] = []

    def other_holder(self, error: KafkaError, *, began: float, troubled_at: float) -> Fatal | None:
        """Return the error to raise if another process really holds the id.

        Returns None if Kafka itself has ended the transaction: then the id is registered again, and the
        committed offsets decide. ``began`` is when the transaction began, ``troubled_at`` when there was
        trouble with the brokers last. A process that was frozen counts as replaced: while it stood still,
        others have taken over what it held.
        """
        now = self._clock()
        troubled = now - troubled_at < TROUBLE_SECONDS
        timed_out = now - began >= self._timeout
        self._seen = [then for then in self._seen if now - then < FENCES_SECONDS] + [now]
        # Most of the time that the transaction had: with a short time-out a short sleep is enough.
        still = min(STILL_SECONDS, self._timeout / 2)
        stood_still = self._stood_still_since(began, still)
        if (troubled or timed_out) and not stood_still and len(self._seen) < FENCES:
            return None
        why = "after the process stood still" if stood_still else "by another producer"
        return Fatal(ExitCode.FENCED, f"{self._name}: fenced {why}: {error.name()}: {words(error)}")
