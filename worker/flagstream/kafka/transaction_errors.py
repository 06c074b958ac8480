"""What an error of a transaction means: for its producer, by its code, and for the caller, by its class."""

from collections.abc import Iterable

from confluent_kafka import KafkaError

from flagstream.errors import FlagstreamError, TransactionAborted
from flagstream.librdkafka_text import words

FENCED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})
"""Kafka counts another epoch of the transactional.id than ours: another holder has registered it, or Kafka
itself has ended the transaction because it timed out.
"""
UNKNOWN_STATE = frozenset(
    {
        KafkaError.INVALID_TXN_STATE,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
        KafkaError.UNKNOWN_PRODUCER_ID,
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
        KafkaError.DUPLICATE_SEQUENCE_NUMBER,
    }
)
"""The brokers do not know the producer as it knows itself: its id has expired (after a week of rest, by
default), or they disagree since a failover. Only registering again helps.
"""
UNSUPPORTED = frozenset({KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION})
"""These brokers never support it, so no repetition helps; librdkafka calls some of these retriable."""
OF_A_RECORD = frozenset(
    {
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_MSG,
        KafkaError.POLICY_VIOLATION,
        KafkaError._INVALID_DIFFERENT_RECORD,
    }
)
"""A topic refuses a record for what it is; others of the same batch share the answer."""
OF_A_TOPIC = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._MSG_TIMED_OUT,
    }
)
"""A topic refuses whatever it is sent, or does not answer. None of these is the answer to a commit that was
sent.
"""
_RIGHTS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "this user may not write (WRITE) to",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: (
        "this user may not use the transactional.id (WRITE and DESCRIBE)"
    ),
    KafkaError.GROUP_AUTHORIZATION_FAILED: "this user may not use the consumer group (READ)",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "this user may not use transactions in the cluster",
}


class NotQueued(FlagstreamError):
    """The open transaction cannot take the record; it has to be aborted."""


class QueueFull(NotQueued):
    """The client's queue has no room. The first ``queued`` records are in it, and the rest may be handed in
    again when the brokers have taken some.
    """

    def __init__(self, queued: int) -> None:
        super().__init__("the client's queue stays full: the brokers take records too slowly")
        self.queued = queued


class RecordTooLarge(TransactionAborted):
    """A broker refused a batch as too large for its topic; the producer is open again, with half the
    limit.
    """


class TransactionRefused(TransactionAborted):
    """A topic does not take what the transaction holds. Transactions without these records, or without this
    topic, may succeed. ``of_a_record``: one of the records is at fault, rather than the topic or the rights.
    ``untimely``: the record's timestamp is at fault.
    """

    def __init__(self, message: str, *, of_a_record: bool, untimely: bool = False) -> None:
        self.of_a_record = of_a_record
        self.untimely = untimely
        super().__init__(message)


def described(error: KafkaError, topics: Iterable[str]) -> str:
    """Return one line: Kafka's name and text of the error, and what a person can do.

    ``topics`` are those that the transaction has written to; the error's own text mostly names none.
    """
    text = f"{error.name()}: {words(error)}"
    if error.code() == KafkaError.INVALID_TIMESTAMP:
        return f"{text}; look at the clock of this machine and the topic's message.timestamp.*.max.ms"
    if error.code() == KafkaError.INVALID_RECORD:
        return f"{text}; a topic with cleanup.policy=compact takes no record without a key: look at the topic"
    right = _RIGHTS.get(error.code())
    if right is None:
        return text
    where = " or ".join(sorted(topics)) if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED else ""
    return f"{right} {where}".rstrip() + f"; grant it ({text})"


def aborted(error: KafkaError, topics: Iterable[str], text: str) -> TransactionAborted:
    """Return what to raise for the first error of a transaction that was rolled back; ``text`` is for
    people.
    """
    if error.code() in OF_A_RECORD:
        untimely = error.code() == KafkaError.INVALID_TIMESTAMP
        return TransactionRefused(text, of_a_record=True, untimely=untimely)
    if error.code() in OF_A_TOPIC or any(topic in words(error) for topic in topics):
        return TransactionRefused(text, of_a_record=False)
    return TransactionAborted(text)
