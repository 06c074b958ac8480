"""Every metric of the worker, in one place. Names end in their unit, as Prometheus asks."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody asked for
REGISTRY = CollectorRegistry()

# the chunk source; `source` is "enrich" or the sink's name
LAG = Gauge(
    "flagstream_lag_records",
    "Records of a partition not yet read.",
    ["source", "topic", "partition"],
    registry=REGISTRY,
)
REJOINS = Counter(
    "flagstream_group_rejoins",
    "Times the consumer group was left and joined again.",
    ["source", "reason"],
    registry=REGISTRY,
)
KAFKA_ERRORS = Counter(
    "flagstream_kafka_errors", "Errors that librdkafka reported.", ["source", "error"], registry=REGISTRY
)

ASSIGNED = Gauge(
    "flagstream_assigned_partitions",
    "Partitions that this process holds.",
    ["source"],
    registry=REGISTRY,
)
STOPPED = Gauge(
    "flagstream_stopped_partitions",
    "Partitions that wait for a person to act.",
    ["source"],
    registry=REGISTRY,
)

# enrich
EVENTS = Counter(
    "flagstream_enrich_events",
    "Events of the ingest topic, by what became of them: enriched, dropped or dead.",
    ["outcome", "reason"],
    registry=REGISTRY,
)
UNRESOLVED = Counter(
    "flagstream_enrich_unresolved_variations",
    "Events without a variation whose value is that of no variation or of several.",
    registry=REGISTRY,
)
TRANSACTIONS = Counter(
    "flagstream_transactions",
    "Kafka transactions, by outcome: committed or aborted.",
    ["stage", "outcome"],
    registry=REGISTRY,
)
TRANSACTION_SECONDS = Histogram(
    "flagstream_transaction_commit_seconds",
    "Time from closing a transaction to its commit.",
    ["stage"],
    registry=REGISTRY,
)
FLAGS = Gauge("flagstream_flags", "Flags in use.", registry=REGISTRY)
INVALID_FLAGS = Gauge(
    "flagstream_invalid_flags",
    "Flags that cannot be read and count as unknown: their events are exported, untracked ones too.",
    registry=REGISTRY,
)
FLAG_ERRORS = Counter(
    "flagstream_flag_load_failures", "Times the flags could not be read again.", registry=REGISTRY
)
FLAG_SOURCE_FAILING = Gauge(
    "flagstream_failing_flag_sources",
    "1 while a source of flags cannot be read and older flags of it are in use, else 0.",
    ["source"],
    registry=REGISTRY,
)
REGISTRY_FAILURES = Counter(
    "flagstream_registry_failures",
    "Calls to the schema registry that failed and are tried again.",
    ["source", "kind"],
    registry=REGISTRY,
)

# export
WINDOWS = Counter(
    "flagstream_export_windows",
    "Windows delivered, by what closed them: events, bytes, time, memory, revoke, shutdown, or replay of a "
    "plan.",
    ["sink", "closed_by"],
    registry=REGISTRY,
)
EXPORTED = Counter("flagstream_export_events", "Events delivered and committed.", ["sink"], registry=REGISTRY)
EXPORTED_BYTES = Counter(
    "flagstream_export_bytes", "Encoded bytes of the objects stored.", ["sink"], registry=REGISTRY
)
OBJECTS = Counter(
    "flagstream_export_objects",
    "Objects, by outcome: created or existing (already there).",
    ["sink", "outcome"],
    registry=REGISTRY,
)
DELIVERY_SECONDS = Histogram(
    "flagstream_export_delivery_seconds", "Time the sink took for one window.", ["sink"], registry=REGISTRY
)
DELIVERY_FAILURES = Counter(
    "flagstream_export_delivery_failures",
    "Deliveries that failed; they are retried, or become dead letters.",
    ["sink", "kind"],
    registry=REGISTRY,
)
REJECTED = Counter(
    "flagstream_export_dead_letters",
    "Records that a sink could not export.",
    ["sink", "reason"],
    registry=REGISTRY,
)
WINDOW_MEMORY = Gauge(
    "flagstream_export_window_memory_bytes", "Bytes held by windows of all sinks.", registry=REGISTRY
)


def text() -> bytes:
    """The metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)
