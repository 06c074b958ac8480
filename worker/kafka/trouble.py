"""What librdkafka reports, put into words: hints for people, errors that end the process, how far behind we
are.
"""

from collections.abc import Mapping

from confluent_kafka import KafkaError

from worker.errors import ExitCode, Fatal

HINTS = {
    KafkaError._ALL_BROKERS_DOWN: "no broker answers at kafka.bootstrap_servers; retried until one does",
    KafkaError._TRANSPORT: "a broker cannot be reached; retried until it can",
    KafkaError._RESOLVE: "a broker's name does not resolve; retried until it does",
    KafkaError._AUTHENTICATION: "check the credentials in kafka.properties",
    KafkaError._SSL: "check the TLS settings in kafka.properties",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "the topic does not exist; create it, or set topics.create = true",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "this user may not read the topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "this user may not use the consumer group",
}


_INSTANCE_TAKEN = (KafkaError.FENCED_INSTANCE_ID, KafkaError.UNRELEASED_INSTANCE_ID)
"""Comes as a fatal error (_FATAL) that has its own reason in the text only."""


def raise_if_fatal(error: KafkaError | None) -> None:
    """Raises Fatal, with the exit code that fits, for an error that no retry mends."""
    if error is None:
        return
    if any(KafkaError(code).str() in error.str() for code in _INSTANCE_TAKEN):
        raise Fatal(ExitCode.FENCED, f"another process uses our group.instance.id: {error.str()}")
    if error.fatal() or error.code() == KafkaError._FATAL:
        raise Fatal(ExitCode.KAFKA, f"{error.name()}: {error.str()}")


def lag(found: Mapping[str, int], position: int) -> int:
    """Records behind, from librdkafka's statistics of a partition.

    The last stable offset of a transactional topic lies behind markers that nobody reads, so at its end the
    difference never becomes zero; but then the fetcher has passed them too and holds nothing.
    """
    end = found["ls_offset"] if found["ls_offset"] >= 0 else found["hi_offset"]
    if end < 0 or (found["fetchq_cnt"] == 0 and found["next_offset"] >= end):
        return 0
    return max(0, end - position)
