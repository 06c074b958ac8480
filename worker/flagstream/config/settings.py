"""Every setting of the worker, declared once: the checks, the reference and the environment come from here.

Durations are seconds and sizes are bytes (see ``flagstream.units``).
"""

from typing import Literal

from pydantic import Field, SecretStr, SerializeAsAny

from flagstream.config.field_types import Copies, Instance, Metadata, Name, RegistryUrl, SinkName, WebHost
from flagstream.config.flags import FlagSettings
from flagstream.config.masking import Mask
from flagstream.config.section import Section
from flagstream.librdkafka import Brokers, Properties
from flagstream.sinks.settings import SinkSettings
from flagstream.units import MIB, Bytes, Count, Line, Seconds, Start, TopicName


class KafkaSettings(Section):
    """The cluster, how the worker is a member of its groups, and what is handed through to librdkafka."""

    bootstrap_servers: Brokers = Field(
        default="localhost:9092",
        min_length=1,
        description="Brokers to begin with: host:port, separated by commas.",
    )
    group_protocol: Literal["classic", "consumer"] = Field(
        default="classic",
        description=(
            'How partitions are shared out: "classic" is cooperative rebalancing, "consumer" is KIP-848, '
            "which needs Kafka 4.0. All members of a group should use the same one."
        ),
    )
    instance: Instance = Field(
        default="",
        description=(
            "A name of this process that no other live process has and that a restart keeps, such as the pod "
            "name in a StatefulSet. The transactional.id is made of it; a restart then ends its "
            "predecessor's transaction at once, instead of after enrich.transaction_timeout. Empty: random."
        ),
    )
    static_membership: bool = Field(
        default=False,
        description=(
            "Join the groups under the instance's name, so that a restart gets its partitions back without a "
            'rebalance. Needs kafka.instance and group_protocol = "classic".'
        ),
    )
    session_timeout: Seconds = Field(
        default=45.0,
        ge=1,
        le=3600,
        description=(
            "A member that the broker has not heard of for this long loses its partitions, and no delivery "
            'starts when the last poll is older. With group_protocol = "consumer" the broker decides: set '
            "here what its group.consumer.session.timeout.ms says."
        ),
    )
    properties: Properties = Field(
        default_factory=dict,
        description=(
            "Any property of librdkafka, for all clients: security.protocol, sasl.*, ssl.*, client.rack and "
            "so on. Those that exactly-once depends on are refused. Passwords and keys are never shown."
        ),
    )
    consumer_properties: Properties = Field(
        default_factory=dict,
        description="Any property of librdkafka, for consumers only; stronger than properties.",
    )
    producer_properties: Properties = Field(
        default_factory=dict,
        description="Any property of librdkafka, for producers only; stronger than properties.",
    )


class TopicSettings(Section):
    """The topics between which events travel."""

    ingest: TopicName = Field(
        default="flag-evaluations",
        description="Raw evaluation events, as applications and relays produce them.",
    )
    output: TopicName = Field(
        default="flag-evaluations-enriched",
        description="Enriched events; what the sinks export. Not compacted.",
    )
    dead_letters: TopicName = Field(
        default="flag-evaluations-dead-letters",
        description="Records that cannot be processed, unchanged, with the reason in their headers.",
    )
    create: bool = Field(
        default=False,
        description="Create the topics that are missing; otherwise a missing topic is waited for.",
    )
    partitions: Count = Field(
        default=8,
        ge=1,
        le=100_000,
        description="Partitions of a topic that is created; the dead letters get one.",
    )
    replication_factor: Copies = Field(
        default=-1,
        ge=-1,
        le=100,
        description="Copies of a topic that is created; -1 is the broker's default.",
    )
    ingest_format: Literal["json", "avro"] = Field(
        default="json",
        description=(
            'What ingest values are: JSON text, or Avro with the id of a schema in [registry] ("avro"; bare '
            "Avro where ingest_schema is given)."
        ),
    )
    ingest_schema: str = Field(
        default="",
        description=(
            "Path of the Avro schema file that all ingest values were written with, which then name none; "
            "empty: they name one of the registry."
        ),
    )
    output_format: Literal["json", "avro"] = Field(
        default="json",
        description=(
            'What output values are: JSON text, or Avro with the id of a schema in [registry] ("avro"; bare '
            "Avro where output_schema is given). Sinks get the same events either way, but JSON needs no "
            "decoding."
        ),
    )
    output_schema: str = Field(
        default="",
        description=(
            "Path of the Avro schema file for all output values, which then name none: a copy of "
            "avro/enriched_event.avsc that never changes, as a value does not name its schema. "
            "Empty: they name one of the registry."
        ),
    )


class RegistrySettings(Section):
    """The schema registry, for topics in Avro: Confluent's, or another with its interface."""

    url: RegistryUrl = Field(
        default="",
        description=(
            "Address of Confluent's interface; for Apicurio it ends in /apis/ccompat/v7. Needed for a topic "
            "in Avro without a schema file."
        ),
    )
    user: Line = Field(default="", description="User for basic authentication; empty: none.")
    password: SecretStr = Field(
        default=SecretStr(""), description="Password of the user; with Confluent Cloud the API secret."
    )
    timeout: Seconds = Field(
        default=10.0, gt=0, le=300, description="How long a call may take before it is tried again."
    )
    auto_register: bool = Field(
        default=False,
        description=(
            "Register the schema of enriched events for the output topic when it is missing; otherwise that "
            "is waited for. The registry is shared with others, so nothing is written to it unasked."
        ),
    )


class EnrichSettings(Section):
    """The stage that turns ingest records into output records."""

    start: Start = Field(
        default="beginning",
        description="Where to begin with an ingest partition that the group <name>.enrich has no offset for.",
    )
    commit_interval: Seconds = Field(
        default=0.2,
        gt=0,
        description=(
            "How long a transaction stays open: the delay after which readers of the output topic see a "
            "record. Each commit costs the cluster some ten writes, whatever it holds."
        ),
    )
    transaction_timeout: Seconds = Field(
        default=10.0,
        ge=1,
        le=900,
        description=(
            "The broker ends a transaction of a dead worker after this long; until then readers of the "
            "output topic wait. At most the broker's transaction.max.timeout.ms (15 minutes by default)."
        ),
    )
    max_transaction_events: Count = Field(
        default=200_000,
        ge=1,
        le=1_000_000,
        description="A transaction is committed early at this many events.",
    )
    max_transaction_bytes: Bytes = Field(
        default=64 * MIB,
        ge=MIB,
        le=4096 * MIB,
        description="A transaction is committed early at this many bytes of values.",
    )
    partitioner: Literal[
        "murmur2_random", "murmur2", "consistent_random", "consistent", "fnv1a_random", "fnv1a", "random"
    ] = Field(
        default="murmur2_random",
        description=(
            "How a key chooses the output partition, by librdkafka's names. The default agrees with Java "
            "clients; changing it moves keys to other partitions."
        ),
    )
    keep_timestamps: bool = Field(
        default=False,
        description=(
            "Give output records the timestamp of their ingest record, not the time of sending. Old "
            "timestamps can be deleted by the topic's retention before they are exported. Costs throughput."
        ),
    )
    default_source: str = Field(
        default="PROVIDER_CACHE",
        description="The source of an event that names none; GO Feature Flag's word.",
    )
    on_missing_records: Literal["stop", "continue"] = Field(
        default="stop",
        description=(
            "When ingest records were deleted before they were read: stop that partition, or count them and "
            "go on."
        ),
    )
    metadata: Metadata = Field(
        default_factory=dict,
        description="Metadata that every event gets; where an event has the same name, its own value stays.",
    )


class ExportSettings(Section):
    """What all sinks of the process share."""

    memory_budget: Bytes = Field(
        default=256 * MIB,
        ge=1024**2,
        description=(
            "Memory for all that waits between fetch and delivery, in equal shares for the enrich stage and "
            "the sinks of the process: one that fails takes nothing from the others. At the limit the "
            "fattest window is delivered early, or less is fetched. docs/operations.md says how a share is "
            "divided."
        ),
    )
    revoke_budget: Seconds = Field(
        default=3.0,
        ge=0,
        le=240,  # of the 300 s (max.poll.interval.ms) after which the group goes on without the member
        description=(
            "How long a partition that is to move to another worker is held back to finish what is planned; "
            "the rest is left to the next owner. The whole group waits for it."
        ),
    )


class WebSettings(Section):
    """The web server with /metrics, /live, /ready and /health."""

    enabled: bool = Field(default=True, description="Whether there is a web server.")
    host: WebHost = Field(
        default="127.0.0.1",
        min_length=1,
        description=(
            'Address to listen on; "*" for all addresses of the host, IPv4 and IPv6, as in a container.'
        ),
    )
    port: Count = Field(default=6066, ge=0, le=65535, description="Port to listen on; 0 is any free one.")


class ShutdownSettings(Section):
    """What happens at SIGTERM."""

    budget: Seconds = Field(
        default=20.0,
        ge=0,
        description=(
            "How long to go on delivering what is under way; the rest is left to the plan and the next "
            "owner. The supervisor must wait at least 15 s longer (Kubernetes waits 30 s by default)."
        ),
    )


class LoggingSettings(Section):
    """The worker's own log, on standard error."""

    format: Literal["auto", "json", "console"] = Field(
        default="auto", description='"auto": for people on a terminal, JSON lines elsewhere.'
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least level shown."
    )


class Settings(Section):
    """The whole configuration."""

    name: Name = Field(
        default="flagstream",
        description=(
            "Begins the names of the consumer groups (<name>.enrich, <name>.sink.<sink>) and of the "
            "transactional ids. Another name is another worker, which begins from the start."
        ),
    )
    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    registry: RegistrySettings = RegistrySettings()
    enrich: EnrichSettings = EnrichSettings()
    flags: FlagSettings = FlagSettings()
    export: ExportSettings = ExportSettings()
    sinks: dict[SinkName, SerializeAsAny[SinkSettings]] = Field(
        default_factory=dict, description="Where events are exported to, by names of your own."
    )
    web: WebSettings = WebSettings()
    shutdown: ShutdownSettings = ShutdownSettings()
    log: LoggingSettings = LoggingSettings()

    _warnings: tuple[str, ...] = ()
    _hidden: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """As pydantic has it, without what is hidden: a log of the settings must not show it either."""
        return Mask(self._hidden).whole(super().__repr__())

    __str__ = __repr__

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is likely a mistake in the configuration, but could be meant; a line each."""
        return self._warnings

    @property
    def hidden(self) -> tuple[str, ...]:
        """Values that are masked in what commands print, beside secrets: those of ``${NAME}`` and of
        files."""
        return self._hidden
