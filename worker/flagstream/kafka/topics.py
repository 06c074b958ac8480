"""What has to hold of the topics before anything is consumed, and what the brokers say of them. Blocking
calls.
"""

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType, TopicDescription

from flagstream.config.settings import TopicSettings
from flagstream.errors import ConfigError, FlagstreamError
from flagstream.librdkafka_text import LOGGER, words
from flagstream.outcomes import Proof
from flagstream.record_limits import DEFAULT_LIMIT, MAX_BYTES, number, reported_limit, too_small

log = structlog.get_logger(__name__)

ANSWER_SECONDS = 10.0
ID_SECONDS = 4.0
"""Bound of one question for a topic's id: commits and deliveries wait for it."""
AGAIN_SECONDS = 0.1
"""Between two looks at a topic that was just created."""
_WHAT = {
    KafkaError._AUTHENTICATION: "the brokers refuse the credentials in kafka.properties",
    KafkaError.SASL_AUTHENTICATION_FAILED: "the brokers refuse the credentials in kafka.properties",
    KafkaError._SSL: "there is no TLS connection to the brokers; check kafka.properties",
}
_PASSING = {
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NOT_CONTROLLER,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
"""Answers of brokers that another try may change; other answers say that the id will not be told."""
_AFTER = re.compile(r" \(after [^)]*\)")
"""librdkafka's measurements, which make every message a new one."""
NO_ID = "A" * 22
"""Zero in base64: what brokers before 2.8, which have no topic ids, seem to say."""

_told_retention: dict[str, object] = {}
_told_limit: dict[str, object] = {}
"""Topics of which the process has logged it: stages and sinks look at the same ones, at the same time."""


class TopicsNotReady(FlagstreamError):
    """The brokers do not answer (``kind`` "kafka"), or a topic is missing ("topic"); it may pass, so it is
    asked again.
    """

    def __init__(self, message: str, kind: str = "kafka") -> None:
        self.kind = kind
        super().__init__(message)


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


class TopicIds:
    """Asks the brokers which ids topics have now, as one that is deleted and created again gets another. From
    any thread.
    """

    def __init__(self, properties: Mapping[str, Any]) -> None:
        self._properties = properties
        self._made: AdminClient | None = None
        self._making = threading.Lock()

    def now(self, topic: str) -> str:
        """The id of ``topic``; empty where the brokers do not tell it. Raises TopicsNotReady if they do not
        answer.
        """
        try:
            answer = self._admin.describe_topics(TopicCollection([topic]), request_timeout=ID_SECONDS)[topic]
            return _id(answer.result(2 * ID_SECONDS))
        except KafkaException as failure:
            error = failure.args[0]
            if error.code() > 0 and error.code() not in _PASSING:
                return ""
            self._forget()
            raise TopicsNotReady(
                f"the id of topic {topic} is not told: {_AFTER.sub('', words(error))}"
            ) from failure
        except TimeoutError as failure:
            self._forget()
            raise TopicsNotReady(f"the id of topic {topic} is not told: no answer") from failure

    def _forget(self) -> None:
        """The client goes on asking the controller that it learned first, which may be the broker that is
        away (librdkafka 2.16); the next one learns it again.
        """
        with self._making:
            self._made = None

    @property
    def _admin(self) -> AdminClient:
        with self._making:
            if self._made is None:
                self._made = AdminClient(dict(self._properties), logger=LOGGER)
            return self._made


def prepare_topics(
    properties: Mapping[str, Any], settings: TopicSettings, needed: Iterable[str]
) -> TopicFacts:
    """Make sure that the topics ``needed`` exist (created if so configured) and are fit for their use.

    Raises TopicsNotReady, and ConfigError for a topic that would lose events.
    """
    names = sorted(set(needed))
    admin, known = _connect(properties)
    if missing := [name for name in names if name not in known]:
        _create(admin, settings, missing)
    configs, unseen = _configs(admin, names)
    for name, error in unseen.items():
        log.warning("topic_settings_unseen", topic=name, error=words(error))
    if problems := [fault for name, config in configs.items() if (fault := _fault(settings, name, config))]:
        raise ConfigError(problems)
    for name, config in configs.items():
        by_producer = config.get("message.timestamp.type") == "CreateTime"
        kept = number(config, "retention.ms")
        if by_producer and kept is not None and kept >= 0 and _first_time(_told_retention, name):
            log.info(
                "retention_by_producer_time",
                topic=name,
                hint="records with old timestamps can be deleted before they are read; see docs/topics.md",
            )
    ids, unseen = _ids(admin, names)
    for name, error in unseen.items():
        log.warning("topic_id_unseen", topic=name, error=words(error))
    limits = {name: record_limit(name, config) for name, config in configs.items()}
    return TopicFacts(limits, ids)


def record_limit(topic: str, config: Mapping[str, str]) -> int:
    """The largest record in bytes that a topic with this configuration takes from our producers.

    A broker that does not report the limit (a gateway, a service that speaks Kafka's protocol) is taken to
    have the default, which is logged once for each topic.
    """
    reported = reported_limit(config)
    if reported is None:
        if _first_time(_told_limit, topic):
            log.warning(
                "topic_limit_unseen",
                topic=topic,
                limit_bytes=DEFAULT_LIMIT,
                hint=f"the broker does not report {MAX_BYTES}; this is halved if the topic refuses a batch",
            )
        return DEFAULT_LIMIT
    return reported


def _first_time(told: dict[str, object], name: str) -> bool:
    asked = object()
    return told.setdefault(name, asked) is asked


def probe(properties: Mapping[str, Any], settings: TopicSettings, needed: Iterable[str]) -> Iterator[Proof]:
    """What ``prepare_topics`` would find, for ``flagstream check``: nothing is created. Raises nothing."""
    try:
        admin, known = _connect(properties)
    except TopicsNotReady as error:
        yield Proof("kafka", "failed", str(error))
        return
    yield Proof("kafka", "proved", f"{properties['bootstrap.servers']} answers")
    names = sorted(set(needed))
    configs, unseen = _configs(admin, [name for name in names if name in known])
    for name in names:
        what = f"topic {name}"
        if name in unseen:
            yield Proof(what, "unproved", f"is there, but its settings cannot be seen: {words(unseen[name])}")
        elif name in configs:
            fault = _fault(settings, name, configs[name])
            size = f"{known[name]} partition{'' if known[name] == 1 else 's'}"
            yield Proof(what, "failed" if fault else "proved", fault or size)
        elif settings.create:
            yield Proof(what, "unproved", "is missing; a worker would create it (topics.create)")
        else:
            yield Proof(
                what, "failed", "is missing, or may not be described; create it, or set topics.create = true"
            )


def _connect(properties: Mapping[str, Any]) -> tuple[AdminClient, dict[str, int]]:
    """A client, and the topics that it may see, each with its number of partitions. Raises TopicsNotReady."""
    said: list[KafkaError] = []
    client: dict[str, Any] = {**properties, "error_cb": said.append}
    try:
        admin = AdminClient(client, logger=LOGGER)
    except KafkaException as failure:
        raise TopicsNotReady(f"no Kafka client can be made: {words(failure.args[0])}") from failure
    try:
        topics = admin.list_topics(timeout=ANSWER_SECONDS).topics
    except KafkaException as failure:
        admin.poll(0)  # fills `said`: the reason, where the time-out tells none
        error = next((e for e in reversed(said) if e.code() != KafkaError._ALL_BROKERS_DOWN), failure.args[0])
        what = _WHAT.get(error.code(), "no broker answers at kafka.bootstrap_servers")
        raise TopicsNotReady(f"{what}: {_AFTER.sub('', words(error))}") from failure
    return admin, {name: len(found.partitions) for name, found in topics.items()}


def _create(admin: AdminClient, settings: TopicSettings, missing: Sequence[str]) -> None:
    if not settings.create:
        roles = ", ".join(f"{name} ({_role(settings, name)})" for name in missing)
        raise TopicsNotReady(
            f"missing topics: {roles}; create them, or set topics.create = true", kind="topic"
        )
    partitions = {name: 1 if name == settings.dead_letters else settings.partitions for name in missing}
    wanted = [NewTopic(name, partitions[name], settings.replication_factor) for name in missing]
    for name, created in admin.create_topics(wanted).items():
        try:
            created.result(ANSWER_SECONDS)
            log.info("topic_created", topic=name, partitions=partitions[name])
        except KafkaException as failure:
            error = failure.args[0]
            if error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicsNotReady(
                    f"topic {name} cannot be created: {words(error)}", kind="topic"
                ) from failure


def _fault(settings: TopicSettings, name: str, config: Mapping[str, str]) -> str | None:
    """Why a topic with these settings would lose events or take none; None if it is fit."""
    policy = config.get("cleanup.policy", "")
    if "compact" in policy:
        return (
            f"{_role(settings, name)}: {name} is compacted (cleanup.policy={policy}), which deletes events "
            "that have a key; set cleanup.policy=delete"
        )
    # The ingest topic is only read.
    if name != settings.ingest and (fault := too_small(config)):
        return f"{_role(settings, name)}: {name} {fault}"
    return None


def _configs(
    admin: AdminClient, names: Sequence[str]
) -> tuple[dict[str, dict[str, str]], dict[str, KafkaError]]:
    """The topics' settings, and why some may not be seen."""

    def ask(topics: Sequence[str]) -> dict[str, Future[Any]]:
        resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
        answers = admin.describe_configs(resources, request_timeout=ANSWER_SECONDS)
        return {resource.name: answer for resource, answer in answers.items()}

    answers, unseen = _told(ask, names)
    configs = {
        name: {key: str(entry.value) for key, entry in answer.items()} for name, answer in answers.items()
    }
    return configs, unseen


def _ids(admin: AdminClient, names: Sequence[str]) -> tuple[dict[str, str], dict[str, KafkaError]]:
    """The topics' ids, and why some may not be seen."""

    def ask(topics: Sequence[str]) -> dict[str, Future[Any]]:
        return admin.describe_topics(TopicCollection(list(topics)), request_timeout=ANSWER_SECONDS)

    answers, unseen = _told(ask, names)
    return {name: _id(answer) for name, answer in answers.items()}, unseen


def _told(
    ask: Callable[[Sequence[str]], Mapping[str, Future[Any]]], names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, KafkaError]]:
    """What the brokers answer about each topic, and why they do not.

    One that is known exists, so a broker that has not heard of it is behind: it was just created, by us or by
    another stage. Then they are asked again, for as long as an answer may take.
    """
    answers: dict[str, Any] = {}
    errors: dict[str, KafkaError] = {}
    give_up = time.monotonic() + ANSWER_SECONDS
    while waiting := [name for name in names if name not in answers]:
        for name, answer in ask(waiting).items():
            try:
                answers[name] = answer.result(2 * ANSWER_SECONDS)  # the request's own time-out comes first
                errors.pop(name, None)
            except KafkaException as failure:
                errors[name] = failure.args[0]
        behind = any(error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART for error in errors.values())
        if not behind or time.monotonic() > give_up:
            break
        time.sleep(AGAIN_SECONDS)
    return answers, errors


def _id(description: TopicDescription) -> str:
    found = str(description.topic_id)
    return "" if found == NO_ID else found


def _role(settings: TopicSettings, name: str) -> str:
    roles = {settings.ingest: "ingest", settings.output: "output", settings.dead_letters: "dead_letters"}
    return f"topics.{roles[name]}" if name in roles else "the topic of a Kafka sink"
