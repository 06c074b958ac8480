"""What has to hold of the topics before anything is consumed, and what the brokers say of them. Blocking
calls.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from worker.config.settings import TopicSettings
from worker.errors import ConfigError
from worker.kafka.transactions import DEFAULT_LIMIT

log = structlog.get_logger(__name__)

ANSWER_SECONDS = 10.0
_WHAT = {
    KafkaError._AUTHENTICATION: "the brokers refuse the credentials in kafka.properties",
    KafkaError.SASL_AUTHENTICATION_FAILED: "the brokers refuse the credentials in kafka.properties",
    KafkaError._SSL: "there is no TLS connection to the brokers; check kafka.properties",
}
_AFTER = re.compile(r" \(after [^)]*\)")
"""librdkafka's measurements, which make every message a new one."""
NO_ID = "A" * 22
"""Zero in base64: what brokers before 2.8, which have no topic ids, seem to say."""

_told_retention: dict[str, object] = {}
"""Topics of which the process has logged it: stages and sinks look at the same ones, at the same time."""


class TopicsNotReady(Exception):
    """The brokers do not answer, or a topic is missing; it may pass, so it is asked again."""


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """``limits``: the largest record batch in bytes that a topic takes; ``ids``: topic ids. Only what the
    broker tells.
    """

    limits: Mapping[str, int] = field(default_factory=dict)
    ids: Mapping[str, str] = field(default_factory=dict)

    def limit(self, *topics: str) -> int:
        """The largest record that each of ``topics`` takes."""
        return min(self.limits.get(topic, DEFAULT_LIMIT) for topic in topics)


def examine(properties: Mapping[str, Any], settings: TopicSettings, needed: Iterable[str]) -> TopicFacts:
    """Make sure that the topics ``needed`` exist (created if so configured) and are fit for their use.

    Raises TopicsNotReady, and ConfigError for a topic that would lose events.
    """
    said: list[KafkaError] = []
    client: dict[str, Any] = {**properties, "error_cb": said.append}
    admin = AdminClient(client, logger=logging.getLogger("librdkafka"))
    names = sorted(set(needed))
    _exist(admin, settings, names, said)
    configs = _configs(admin, names)
    problems = [
        f"{_role(settings, name)}: {name} is compacted (cleanup.policy={config['cleanup.policy']}), which "
        "deletes events that have a key; set cleanup.policy=delete"
        for name, config in configs.items()
        if "compact" in config.get("cleanup.policy", "")
    ]
    if problems:
        raise ConfigError(problems)
    for name, config in configs.items():
        by_producer = config.get("message.timestamp.type") == "CreateTime"
        asked = object()
        if (
            by_producer
            and int(config.get("retention.ms", -1)) >= 0
            and _told_retention.setdefault(name, asked) is asked
        ):
            log.info(
                "retention_by_producer_time",
                topic=name,
                hint="records with old timestamps can be deleted before they are read; see docs/topics.md",
            )
    limits = {name: int(config["max.message.bytes"]) for name, config in configs.items()}
    return TopicFacts(limits, _ids(admin, names))


def _exist(admin: AdminClient, settings: TopicSettings, names: list[str], said: list[KafkaError]) -> None:
    try:
        known = admin.list_topics(timeout=ANSWER_SECONDS).topics
    except KafkaException as failure:
        admin.poll(0)  # fills `said`: the reason, where the time-out tells none
        error = next((e for e in reversed(said) if e.code() != KafkaError._ALL_BROKERS_DOWN), failure.args[0])
        what = _WHAT.get(error.code(), "no broker answers at kafka.bootstrap_servers")
        raise TopicsNotReady(f"{what}: {_AFTER.sub('', error.str())}") from failure
    missing = [name for name in names if name not in known]
    if not missing:
        return
    if not settings.create:
        roles = ", ".join(f"{name} ({_role(settings, name)})" for name in missing)
        raise TopicsNotReady(f"missing topics: {roles}; create them, or set topics.create = true")
    wanted = [
        NewTopic(
            name, 1 if name == settings.dead_letters else settings.partitions, settings.replication_factor
        )
        for name in missing
    ]
    for name, created in admin.create_topics(wanted).items():
        try:
            created.result(ANSWER_SECONDS)
            log.info("topic_created", topic=name, partitions=settings.partitions)
        except KafkaException as failure:
            error = failure.args[0]
            if error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicsNotReady(f"topic {name} cannot be created: {error.str()}") from failure


def _configs(admin: AdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    """The topics' settings; of those that we may not see, nothing."""
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    configs = {}
    for resource, answer in admin.describe_configs(resources, request_timeout=ANSWER_SECONDS).items():
        try:
            configs[resource.name] = {
                key: str(entry.value) for key, entry in answer.result(ANSWER_SECONDS).items()
            }
        except KafkaException as failure:
            log.warning("topic_settings_unseen", topic=resource.name, error=failure.args[0].str())
    return configs


def _ids(admin: AdminClient, names: list[str]) -> dict[str, str]:
    ids = {}
    for name, answer in admin.describe_topics(TopicCollection(names), request_timeout=ANSWER_SECONDS).items():
        try:
            found = str(answer.result(ANSWER_SECONDS).topic_id)
            ids[name] = "" if found == NO_ID else found
        except KafkaException as failure:
            log.warning("topic_id_unseen", topic=name, error=failure.args[0].str())
    return ids


def _role(settings: TopicSettings, name: str) -> str:
    roles = {settings.ingest: "ingest", settings.output: "output", settings.dead_letters: "dead_letters"}
    return f"topics.{roles[name]}" if name in roles else "the topic of a Kafka sink"
