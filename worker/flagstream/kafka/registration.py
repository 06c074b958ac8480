"""The client that is registered for a transactional.id, and a new one whenever it has become useless."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from flagstream.kafka.transaction_calls import TRY_SECONDS, Hangs, TransactionCalls, bounded
from flagstream.kafka.transaction_errors import UNSUPPORTED, described
from flagstream.librdkafka_text import LOGGER, words
from flagstream.operate.retry import Backoff
from flagstream.record_limits import DEFAULT_LIMIT, SMALLEST_LIMIT

log = structlog.get_logger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds between tries to register with the transaction coordinator."""


class Registration:
    """Keeps the client of the transactional.id ``name``. ``make`` makes a client of its properties.

    ``limit`` is the largest record, in bytes, that the next client takes.
    """

    def __init__(
        self,
        name: str,
        properties: Mapping[str, Any],
        calls: TransactionCalls,
        make: Callable[..., Producer],
    ) -> None:
        self.limit = DEFAULT_LIMIT
        self._properties = dict(properties)
        self._calls = calls
        self._make = make
        self._client: Producer | None = None
        self._log = log.bind(transactional_id=name)

    @property
    def client(self) -> Producer:
        """The client that :meth:`register` made last."""
        assert self._client is not None, "no client is registered"
        return self._client

    def register(self) -> None:
        """Register a new client with the transaction coordinator, which ends what the id has left open.

        Tries until the coordinator answers or ``calls.keep_trying`` returns False. An error that is not
        retriable ends a client, so each such try makes another one.
        """
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        connected = False
        with self._calls.under_way("init_transactions"):
            while self._calls.keep_trying():
                try:
                    if not connected:
                        self._client = self._made()
                        connected = True
                    bounded(lambda: self.client.init_transactions(TRY_SECONDS))
                    self._calls.problem = ""
                    return
                except Hangs:
                    self._calls.note("init_transactions does not come back")
                    connected = False
                except KafkaException as failure:
                    error: KafkaError = failure.args[0]
                    self._calls.note(described(error, ()))
                    if not error.retriable() or error.code() in UNSUPPORTED:
                        connected = False  # a client with a fatal error answers nothing else
                self._log.warning("transactions_not_ready", error=self._calls.problem)
                self._calls.pause(backoff.next_pause())

    def abandon(self, problem: str) -> None:
        """Give the client up because of ``problem``, and register a new one: Kafka then aborts whatever is
        still open.
        """
        self._calls.note(problem)
        self._log.error("producer_abandoned", error=problem, hint="the id is registered again")
        self.register()

    def halve_limit(self, error: str) -> None:
        """A topic takes less than ``limit``: register a client that takes half of it."""
        self.limit = max(self.limit // 2, SMALLEST_LIMIT)
        self._log.warning("topic_takes_less", limit_bytes=self.limit, error=error)
        self.register()

    def poll(self, seconds: float) -> None:
        """Let librdkafka call back, and let go of records that are delivered.

        A poll raises a fatal error, whichever poll is the next one. It is passed over here: every later call
        on the client fails as well, and says why.
        """
        with suppress(KafkaException):
            self.client.poll(seconds)

    def wrong_with(self, topics: Iterable[str]) -> str:
        """Return what the brokers say is wrong with ``topics``, as the rest of a sentence, or ""."""
        wrong = []
        for topic in sorted(topics):
            try:
                error = self.client.list_topics(topic, timeout=TRY_SECONDS).topics[topic].error
            except KafkaException:
                return ""
            if error is not None:
                wrong.append(f"; topic {topic}: {words(error)}")
        return "".join(wrong)

    def close(self) -> None:
        """Let the client go, with its threads and connections."""
        self._client = None

    def _made(self) -> Producer:
        return self._make(
            {
                **self._properties,
                **self._room_for_one(),
                # No delivery callback: each would want the interpreter for itself, 100,000 times a commit.
                "message.max.bytes": self.limit,
                "error_cb": self._on_error,
            },
            logger=LOGGER,
        )

    def _room_for_one(self) -> dict[str, int]:
        """A record that is larger than the client's queue would never find room."""
        name = "queue.buffering.max.kbytes"
        if name not in self._properties:
            return {}
        return {name: max(int(self._properties[name]), self.limit // 1024 + 1)}

    def _on_error(self, error: KafkaError) -> None:
        """librdkafka calls this when it lost a broker or the like; it goes on by itself."""
        self._calls.troubled()
