"""Calls of librdkafka that may never come back, waited for with a bound."""

import queue
import threading
from collections.abc import Callable

from flagstream.errors import FlagstreamError

HANG_SECONDS = 15
"""After which a call with a time-out of a few seconds is given up."""


class Hangs(FlagstreamError):
    """A call did not come back long after its own time-out."""


def bounded(function: Callable[[], object]) -> None:
    """Call ``function`` in a thread of its own and wait for it no longer than ``HANG_SECONDS``.

    librdkafka's send_offsets_to_transaction() ignores its time-out while a coordinator is away
    (confluentinc/librdkafka issues 5456 and 5511), and may never return. The wait is counted in steps: a
    process that was frozen has not waited.
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
            error = outcome.get(timeout=1.0)
        except queue.Empty:
            continue
        if error is not None:
            raise error
        return
    raise Hangs
