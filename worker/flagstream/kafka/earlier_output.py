"""Another ``name`` is another worker: what the output topic holds then comes again, unnoticed."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from flagstream.config.settings import Settings
from flagstream.errors import FlagstreamError
from flagstream.kafka.properties import enrich_group
from flagstream.librdkafka_text import LOGGER, words

ANSWER_SECONDS = 10.0


class NotTold(FlagstreamError):
    """The brokers do not say it: a right is missing, or none answers."""


def earlier_output(properties: Mapping[str, Any], settings: Settings) -> str | None:
    """Say that the output topic holds records, and that no enrich stage of this ``name`` wrote them; None if
    that is not so.

    ``properties`` are those of a client that looks at the cluster. Blocks; no call for longer than
    ANSWER_SECONDS. Raises NotTold.
    """
    topics, group = settings.topics, enrich_group(settings)
    # It never joins the group, so it disturbs nobody. The administrative calls for offsets end the process
    # where the group is unknown (a segmentation fault in confluent-kafka 2.16).
    try:
        client = Consumer({**properties, "group.id": group}, logger=LOGGER)
    except KafkaException as failure:
        raise NotTold(words(failure.args[0])) from failure
    with closing(client):
        try:
            # In this order: what our own group wrote came together with its offsets.
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
