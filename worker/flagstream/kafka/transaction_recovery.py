"""What makes a transactional producer usable again after an error."""

from collections.abc import Collection

import structlog
from confluent_kafka import KafkaError, KafkaException

from flagstream.errors import TransactionUncertain
from flagstream.kafka.fences import Fences
from flagstream.kafka.registration import Registration
from flagstream.kafka.transaction_calls import TRY_SECONDS, Hangs, TransactionCalls, bounded
from flagstream.kafka.transaction_errors import (
    FENCED,
    OF_A_RECORD,
    OF_A_TOPIC,
    UNKNOWN_STATE,
    UNSUPPORTED,
    RecordTooLarge,
    aborted,
    described,
)
from flagstream.record_limits import SMALLEST_LIMIT

log = structlog.get_logger(__name__)


class TransactionRecovery:
    """Rolls transactions of the id ``name`` back that an error ended, or registers the id again. Blocking."""

    def __init__(
        self, name: str, calls: TransactionCalls, registration: Registration, fences: Fences
    ) -> None:
        self._name = name
        self._calls = calls
        self._registration = registration
        self._fences = fences

    def after(
        self, error: KafkaError, topics: Collection[str], began: float, *, committing: bool = False
    ) -> Exception:
        """Make the producer usable after ``error``, the first one of a transaction that began at ``began``
        and has written to ``topics``. Returns what to raise. ``committing``: the error answers a commit.
        """
        if error.code() == KafkaError._STATE and error.txn_requires_abort():
            error = self.broken_by() or error  # a delivery failed meanwhile
        text = f"{self._name}: {described(error, topics)}"
        if error.code() == KafkaError._INCONSISTENT:  # deliveries failed, and it does not say why
            text += self._registration.wrong_with(topics)
        fence = error if error.code() in FENCED else None
        usable = (
            error.code() not in FENCED | UNKNOWN_STATE
            and (error.txn_requires_abort() or error.code() in UNSUPPORTED)
            and not error.fatal()
        )
        if usable and (failed := self._roll_back(topics)) is not None:
            usable = False
            # What failed first may be what time alone does to a process that stood still.
            fence = failed if isinstance(failed, KafkaError) and failed.code() in FENCED else None
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE and self._registration.limit > SMALLEST_LIMIT:
            self._registration.halve_limit(text)
            return RecordTooLarge(text)
        if not usable:
            if fence is not None:
                self._registration.poll(0)  # librdkafka reports lost brokers
                troubled_at = self._calls.troubled_at
                holder = self._fences.other_holder(fence, began=began, troubled_at=troubled_at)
                if holder is not None:
                    return holder
            self._registration.abandon(text)
        elif error.code() in OF_A_RECORD:
            # librdkafka has counted the batch and the broker has not: the next one would be out of order.
            self._registration.register()
        # What a topic has refused was not delivered, so no commit was sent. The code decides: a text may name
        # a topic by chance.
        if committing and not usable and error.code() not in OF_A_RECORD | OF_A_TOPIC:
            return TransactionUncertain(text)
        return aborted(error, topics, text)

    def broken_by(self) -> KafkaError | None:
        """Return the error of a failed delivery, after which the transaction accepts no more records. Only an
        attempt to commit, which is bound to fail, reveals it.
        """
        client = self._registration.client
        try:
            bounded(lambda: client.commit_transaction(TRY_SECONDS))
        except Hangs:
            return None  # the abort hangs as well, and that is dealt with
        except KafkaException as failure:
            error: KafkaError = failure.args[0]
            return None if error.retriable() else error
        return None

    def described(self, error: KafkaError, topics: Collection[str]) -> str:
        """Return an error in words, with what the brokers say of the transaction's topics."""
        return described(error, topics) + self._registration.wrong_with(topics)

    def _roll_back(self, topics: Collection[str]) -> KafkaError | Hangs | None:
        """Roll back after an error. Returns what prevented that, if anything: for example that nothing could
        be added to the transaction, so that Kafka knows of none.
        """
        client = self._registration.client
        try:
            self._calls.until_done(
                "abort_transaction",
                lambda: client.abort_transaction(TRY_SECONDS),
                lambda error: self.described(error, topics),
            )
        except (Hangs, KafkaException) as failure:
            # The transaction is aborted when the id is registered again.
            log.info("transaction_abandoned", transactional_id=self._name, error=str(failure))
            return failure if isinstance(failure, Hangs) else failure.args[0]
        self._registration.poll(0)
        return None
