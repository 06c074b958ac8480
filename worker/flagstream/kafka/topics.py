"""Checks and creates topics before anything is consumed, and asks the brokers about them. All calls block."""

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
"""Bound of one request."""
ID_SECONDS = 4.0
"""Bound of one request for a topic's id, which commits and deliveries wait for."""
AGAIN_SECONDS = 0.1
"""Seconds between two requests about a topic that was just created."""
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
"""Answers that another try may change. After other answers the broker will not report the id."""
_AFTER = re.compile(r" \(after [^)]*\)")
"""librdkafka adds what it measured to a text, which makes each text a new one."""
NO_ID = "A" * 22
"""Zero in base64: the id that brokers before 2.8, which have no topic ids, seem to report."""

_logged_retention: dict[str, object] = {}
_logged_limit: dict[str, object] = {}
"""Topics about which the process has logged this: stages and sinks look at the same topics at the same
time.
"""


class TopicsNotReady(FlagstreamError):
    """The brokers do not answer (``kind`` "kafka"), or a topic is missing ("topic"). Either may pass: try
    again.
    """

    def __init__(self, message: str, kind: str = "kafka") -> None:
        self.kind = kind
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What the brokers report about topics. ``limits``: the largest record batch in bytes that each takes;
    ``ids``: their ids.
    """

    limits: Mapping[str, int] = field(default_factory=dict)
    ids: Mapping[str, str] = field(default_factory=dict)

    def limit(self, *topics: str) -> int:
        """Return the size of the largest record that all of ``topics`` take."""
        return min(self.limits.get(topic, DEFAULT_LIMIT) for topic in topics)


class TopicIds:
    """Asks the brokers which ids topics have now: a topic that is deleted and created again gets another id.
    Methods may be called from any thread.
    """

    def __init__(self, properties: Mapping[str, Any]) -> None:
        self._properties = properties
        self._made: AdminClient | None = None
        self._making = threading.Lock()

    def now(self, topic: str) -> str:
        """Return the id of ``topic``, or "" if the brokers do not report one.

        Raises TopicsNotReady if they do not answer.
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
                f"the id of topic {topic} is not known: {_AFTER.sub('', words(error))}"
            ) from failure
        except TimeoutError as failure:
            self._forget()
            raise TopicsNotReady(f"the id of topic {topic} is not known: no answer") from failure

    def _forget(self) -> None:
        """Make a new client for the next question. A client goes on asking the controller that it learned
        first (librdkafka 2.16), which may be the broker that is away.
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
    """Make sure that the topics ``needed`` exist and are fit for their use. Missing ones are created if so
    configured.

    Raises TopicsNotReady if that has to be tried again, and ConfigError for a topic that would lose events.
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
        if by_producer and kept is not None and kept >= 0 and _first_time(_logged_retention, name):
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
    """Return the size in bytes of the largest record that a topic with this configuration takes from a
    producer.

    If a broker does not report the limit (a gateway, a service that speaks Kafka's protocol), the default is
    assumed and logged, once for each topic.
    """
    reported = reported_limit(config)
    if reported is None:
        if _first_time(_logged_limit, topic):
            log.warning(
                "topic_limit_unseen",
                topic=topic,
                limit_bytes=DEFAULT_LIMIT,
                hint=f"the broker does not report {MAX_BYTES}; this is halved if the topic refuses a batch",
            )
        return DEFAULT_LIMIT
    return reported


def _first_time(logged: dict[str, object], name: str) -> bool:
    asked = object()
    return logged.setdefault(name, asked) is asked


def probe(properties: Mapping[str, Any], settings: TopicSettings, needed: Iterable[str]) -> Iterator[Proof]:
    """Yield what ``prepare_topics`` would find, for ``flagstream check``. Creates nothing, and raises
    nothing.
    """
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
    """Return a client, and the partition counts of the topics that it may see. Raises TopicsNotReady."""
    said: list[KafkaError] = []
    client: dict[str, Any] = {**properties, "error_cb": said.append}
    try:
        admin = AdminClient(client, logger=LOGGER)
    except KafkaException as failure:
        raise TopicsNotReady(f"no Kafka client can be made: {words(failure.args[0])}") from failure
    try:
        topics = admin.list_topics(timeout=ANSWER_SECONDS).topics
    except KafkaException as failure:
        admin.poll(0)  # fills `said`: the reason, where the time-out gives none
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
    """Return why a topic with these settings would lose events or take none; None if it is fit."""
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
    """Return the topics' settings, and the errors of those that may not be read."""

    def ask(topics: Sequence[str]) -> dict[str, Future[Any]]:
        resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
        answers = admin.describe_configs(resources, request_timeout=ANSWER_SECONDS)
        return {resource.name: answer for resource, answer in answers.items()}

    answers, unseen = _answers(ask, names)
    configs = {
        name: {key: str(entry.value) for key, entry in answer.items()} for name, answer in answers.items()
    }
    return configs, unseen


def _ids(admin: AdminClient, names: Sequence[str]) -> tuple[dict[str, str], dict[str, KafkaError]]:
    """Return the topics' ids, and the errors of those that may not be read."""

    def ask(topics: Sequence[str]) -> dict[str, Future[Any]]:
        return admin.describe_topics(TopicCollection(list(topics)), request_timeout=ANSWER_SECONDS)

    answers, unseen = _answers(ask, names)
    return {name: _id(answer) for name, answer in answers.items()}, unseen


def _answers(
    ask: Callable[[Sequence[str]], Mapping[str, Future[Any]]], names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, KafkaError]]:
    """Return what the brokers answer about each topic, and the errors of those without an answer.

    The topics are in the metadata, so a broker that does not know one is lagging: it was just created, by
    this stage or another one. Ask again for up to ANSWER_SECONDS.
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
        lagging = any(error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART for error in errors.values())
        if not lagging or time.monotonic() > give_up:
            break
        time.sleep(AGAIN_SECONDS)
    return answers, errors


def _id(description: TopicDescription) -> str:
    found = str(description.topic_id)
    return "" if found == NO_ID else found


def _role(settings: TopicSettings, name: str) -> str:
    roles = {settings.ingest: "ingest", settings.output: "output", settings.dead_letters: "dead_letters"}
    return f"topics.{roles[name]}" if name in roles else "the topic of a Kafka sink"
