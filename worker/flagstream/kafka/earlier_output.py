"""Finds out whether a worker of another ``name`` has filled the output topic: this one would do it again."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from flagstream.config.settings import Settings
from flagstream.errors import FlagstreamError
from flagstream.kafka.properties import enrich_group
from flagstream.librdkafka_text import LOGGER, words

ANSWER_SECONDS = 10.0
"""Bound of one call to the brokers."""


class NotTold(FlagstreamError):
    """The brokers do not answer the question: a right is missing, or none of them can be reached."""


def earlier_output(properties: Mapping[str, Any], settings: Settings) -> str | None:
    """Return a text for people if the output topic holds records that no enrich stage of this ``name`` wrote;
    None otherwise.

    ``properties`` are those of a client that looks at the cluster. Blocks, in each call for up to
    ANSWER_SECONDS. Raises NotTold.
    """
    topics, group = settings.topics, enrich_group(settings)
    # A consumer that never joins the group disturbs nobody. The administrative calls for offsets end the
    # process if the group is unknown (a segmentation fault in confluent-kafka 2.16).
    try:
        client = Consumer({**properties, "group.id": group}, logger=LOGGER)
    except KafkaException as failure:
        raise NotTold(words(failure.args[0])) from failure
    with closing(client):
        try:
            # In this order: a group commits its offsets together with the records that it writes.
            if not _is_filled(client, topics.output) or _has_offsets(client, topics.ingest):
                return None
        except KafkaException as failure:
            raise NotTold(words(failure.args[0])) from failure
    return (
        f"{topics.output} already holds records, but the group {group} has no offsets of "
        f"{topics.ingest}: under another name, or before they expired, a worker wrote them. This one begins "
        "at enrich.start, and its sinks at theirs, so what they exported comes again. Not meant? Set "
        "name as it was"
    )


def _is_filled(consumer: Consumer, topic: str) -> bool:
    return any(
        low < high
        for place in _partitions(consumer, topic)
        for low, high in [consumer.get_watermark_offsets(place, timeout=ANSWER_SECONDS)]
    )


def _has_offsets(consumer: Consumer, topic: str) -> bool:
    found = consumer.committed(_partitions(consumer, topic), timeout=ANSWER_SECONDS)
    return any(place.offset >= 0 for place in found)


def _partitions(consumer: Consumer, topic: str) -> list[TopicPartition]:
    known = consumer.list_topics(topic, timeout=ANSWER_SECONDS).topics[topic]
    return [TopicPartition(topic, index) for index in known.partitions]
