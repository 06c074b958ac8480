"""Asks Kafka what the worker's user may do with topics and groups, for `flagstream check`."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient

from flagstream.librdkafka_text import LOGGER, words
from flagstream.outcomes import Proof

ANSWER_SECONDS = 10.0
"""Bound of one request, and the time for which passing errors are tried again."""
AGAIN_SECONDS = 0.2
"""Seconds between two tries."""
READ, WRITE = "READ", "WRITE"
"""Operations, by Kafka's names."""
_PASSING = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
_DENIED = {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED}


def prove_rights(
    properties: Mapping[str, Any], topics: Mapping[str, Collection[str]], groups: Sequence[str]
) -> Iterator[Proof]:
    """Yield whether the user has the rights that each of ``topics`` needs, and may read in ``groups``.

    Changes nothing, and raises nothing. Kafka does not answer questions about rights to transactional ids.
    """
    try:
        admin = AdminClient(dict(properties), logger=LOGGER)
    except KafkaException as failure:
        yield Proof("rights", "failed", f"no Kafka client can be made: {words(failure.args[0])}")
        return

    def of_topic(name: str) -> Future[Any]:
        return admin.describe_topics(
            TopicCollection([name]), include_authorized_operations=True, request_timeout=ANSWER_SECONDS
        )[name]

    def of_group(name: str) -> Future[Any]:
        return admin.describe_consumer_groups(
            [name], include_authorized_operations=True, request_timeout=ANSWER_SECONDS
        )[name]

    for name, needed in topics.items():
        yield _proof(f"rights to {name}", sorted(needed), partial(of_topic, name))
    for name in groups:
        yield _proof(f"rights to group {name}", [READ], partial(of_group, name))
    yield Proof("read and write", "unproved", "rights to transactional ids show only in their use")


def _proof(what: str, needed: Sequence[str], ask: Callable[[], Future[Any]]) -> Proof:
    try:
        operations = _answer(ask)
    except KafkaException as failure:
        error = failure.args[0]
        if error.code() in _DENIED:
            return Proof(what, "failed", f"this user may not even describe it; grant {', '.join(needed)}")
        return Proof(what, "unproved", f"Kafka does not say: {words(error)}")
    except TimeoutError:
        return Proof(what, "unproved", "Kafka does not say: no answer")
    if not operations:
        return Proof(what, "unproved", "Kafka does not say; rights show only in their use")
    granted = {AclOperation(operation).name for operation in operations}
    if missing := [name for name in needed if name not in granted]:
        return Proof(what, "failed", f"this user lacks {', '.join(missing)}; grant it")
    return Proof(what, "proved", ", ".join(needed))


def _answer(ask: Callable[[], Future[Any]]) -> Sequence[Any] | None:
    """Return the operations that Kafka allows. Raises KafkaException or TimeoutError."""
    give_up = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            found: Sequence[Any] | None = ask().result(2 * ANSWER_SECONDS).authorized_operations
            return found
        except KafkaException as failure:
            if failure.args[0].code() not in _PASSING or time.monotonic() > give_up:
                raise
        time.sleep(AGAIN_SECONDS)
