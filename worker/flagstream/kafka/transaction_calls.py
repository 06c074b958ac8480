"""Calls of librdkafka's transactional functions: bounded, repeated while that helps, and shown meanwhile."""

import queue
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import structlog
from confluent_kafka import KafkaError, KafkaException

from flagstream.errors import FlagstreamError
from flagstream.kafka.transaction_errors import UNSUPPORTED
from flagstream.operate.health import Problem
from flagstream.operate.retry import Backoff

log = structlog.get_logger(__name__)

TRY_SECONDS = 5.0
"""The time-out that each single call gets."""
HANG_SECONDS = 15
"""A call that has not returned after so many seconds, long after its own time-out, is given up."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
"""Seconds between repetitions of a call: some errors that librdkafka calls retriable return at once."""
SLOW_SECONDS = 3.0
"""A transactional call that takes longer is a problem; *measured*: some 10 ms."""


class Hangs(FlagstreamError):
    """A call did not succeed in its time, or did not return at all."""


def bounded(function: Callable[[], object], step: float = 1.0) -> None:
    """Call ``function`` in a thread of its own and wait for it, ``HANG_SECONDS`` times ``step`` seconds.

    librdkafka's send_offsets_to_transaction() ignores its time-out while a coordinator is away
    (confluentinc/librdkafka issues 5456 and 5511), and may never return. The wait is counted in steps, so the
    time for which a process was frozen does not count. Raises what ``function`` raises, and Hangs when the
    wait is over.
    """
    outcome: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def call() -> None:
        try:
            function()
        except Exception as error:
            outcome.put(error)
        else:
            outcome.put(None)

    threading.Thread(target=call, name="transaction-call", daemon=True).start()
    for _ in range(HANG_SECONDS):
        try:
            error = outcome.get(timeout=step)
        except queue.Empty:
            continue
        if error is not None:
            raise error
        return
    raise Hangs


class TransactionCalls:
    """Makes the blocking calls for the transactional.id ``name``, one at a time.

    A call that fails with a retriable error is repeated for up to ``deadline`` seconds. ``keep_trying``
    returns False when the process ends, so that no pause holds it up. ``problem`` is the last trouble of the
    present call, for people, or ""; ``troubled_at`` is when there was trouble with the brokers last, in
    seconds of ``clock``.
    """

    def __init__(
        self, name: str, deadline: float, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self.keep_trying: Callable[[], bool] = lambda: True
        self.problem = ""
        self.troubled_at = float("-inf")
        self._name = name
        self._deadline = deadline
        self._clock = clock
        self._sleep = sleep
        self._under_way: tuple[str, float] | None = None
        self._log = log.bind(transactional_id=name)

    def until_done(
        self, call: str, function: Callable[[], object], describe: Callable[[KafkaError], str]
    ) -> None:
        """Make the call named ``call``, and repeat it while librdkafka asks for that and the deadline is not
        reached. Raises KafkaException for an error that no repetition mends, and Hangs when the call does not
        end. ``describe`` puts an error into words.
        """
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        give_up = self._clock() + self._deadline
        self.problem = ""
        with self.under_way(call):
            while True:
                try:
                    bounded(function)
                    return
                except KafkaException as failure:
                    error: KafkaError = failure.args[0]
                    if not error.retriable() or error.code() in UNSUPPORTED:
                        raise
                    self.note(describe(error))
                self._log.warning("transaction_retried", call=call, error=self.problem)
                if self._clock() >= give_up:
                    raise Hangs
                self.pause(backoff.next_pause())

    @contextmanager
    def under_way(self, call: str) -> Iterator[None]:
        """While this lasts, :meth:`problems` reports the call if it takes long."""
        self._under_way = (call, self._clock())
        try:
            yield
        finally:
            self._under_way = None

    def note(self, problem: str) -> None:
        """Keep ``problem`` as what the present call has trouble with."""
        self.problem = problem
        self.troubled()

    def troubled(self) -> None:
        """Remember that there is trouble with the brokers now."""
        self.troubled_at = self._clock()

    def pause(self, seconds: float) -> None:
        """Wait ``seconds``, or until ``keep_trying`` returns False."""
        while seconds > 0 and self.keep_trying():
            self._sleep(min(seconds, 0.5))
            seconds -= 0.5

    def problems(self, topics: Collection[str]) -> Iterator[Problem]:
        """Yield what Kafka keeps the present call waiting for. May be called from any thread. ``topics`` are
        those that the transaction writes to.
        """
        if (calling := self._under_way) is None:
            return
        call, since = calling
        took = self._clock() - since
        problem = self.problem
        if problem or took > SLOW_SECONDS:
            names = ", ".join(sorted(topics)) or "no topic yet"
            about = problem or f"the brokers do not answer (the transaction writes to {names})"
            text = f"transactional.id {self._name}: {call} goes on for {took:.0f} s: {about}"
            yield Problem("transaction", text)
