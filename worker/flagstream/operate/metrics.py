"""Declares every metric of the worker in one place. Names end in their unit, as Prometheus asks.

All series of a counter exist from the start (:func:`begin`); those of partitions come and go with them.
"""

import platform
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from flagstream.dead_letters import REASONS
from flagstream.operate.health import KINDS, PROCESS, Health, counted

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody asked for
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

# the process
LOG_LINES_LOST = Counter(
    "flagstream_log_lines_lost",
    "Lines of the worker's log that could not be written: its reader is gone or too slow, or its disk is "
    "full.",
    registry=REGISTRY,
)
BUILD = Gauge(
    "flagstream_build_info",
    "Always 1; the labels are the versions of flagstream and of what it runs on.",
    ["version", "python", "librdkafka"],
    registry=REGISTRY,
)
READY = Gauge("flagstream_ready", "1 while /ready says yes, else 0.", registry=REGISTRY)
PROBLEMS = Gauge(
    "flagstream_problems",
    "What /health finds wrong, by kind.",
    ["source", "kind"],
    registry=REGISTRY,
)

# the chunk source; `source` is "enrich" or the sink's name
_PARTITION = ["source", "topic", "partition"]
LAG = Gauge(
    "flagstream_lag_records",
    "Records of a partition not yet committed; NaN while the brokers do not report where it ends.",
    _PARTITION,
    registry=REGISTRY,
)
LAG_HIGH = Gauge(
    "flagstream_lag_to_high_watermark_records",
    "Records of a partition not yet committed, with those of open transactions; NaN while not known.",
    _PARTITION,
    registry=REGISTRY,
)
BEHIND = Gauge(
    "flagstream_behind_seconds",
    "Age of the oldest record of a partition that is not committed; 0 where there is none, NaN while not "
    "known.",
    _PARTITION,
    registry=REGISTRY,
)
SINCE_DELIVERY = Gauge(
    "flagstream_since_delivery_seconds",
    "Time since records of a partition were last committed, or since it was taken where none have been.",
    _PARTITION,
    registry=REGISTRY,
)
UNDER_WAY = Gauge(
    "flagstream_delivery_under_way_seconds",
    "For how long the call of the sink, or the commit of the transaction, that is under way has not come "
    "back; 0 while there is none.",
    _PARTITION,
    registry=REGISTRY,
)
MARGIN = Gauge(
    "flagstream_retention_margin_records",
    "Records of a partition that retention deletes before it deletes one that is not committed; NaN while "
    "not known.",
    _PARTITION,
    registry=REGISTRY,
)
OF_A_PARTITION: Final = (LAG, LAG_HIGH, BEHIND, SINCE_DELIVERY, UNDER_WAY, MARGIN)
"""There is a series of each for every partition that the process holds."""
REJOINS = Counter(
    "flagstream_group_rejoins",
    "Times the consumer group was left and joined again.",
    ["source", "reason"],
    registry=REGISTRY,
)
KAFKA_ERRORS = Counter(
    "flagstream_kafka_errors", "Errors that librdkafka reported.", ["source", "error"], registry=REGISTRY
)
_KAFKA_ERRORS: Final = (
    "_ALL_BROKERS_DOWN",
    "_AUTHENTICATION",
    "_RESOLVE",
    "_SSL",
    "_TIMED_OUT",
    "_TRANSPORT",
    "GROUP_AUTHORIZATION_FAILED",
    "TOPIC_AUTHORIZATION_FAILED",
    "UNKNOWN_TOPIC_OR_PART",
)
_OTHER: Final = "other"
_REJOINS: Final = ("slow", "UNKNOWN_MEMBER_ID")


def kafka_error(source: str, error: str) -> None:
    """Count an error that librdkafka reported. Those that have no series of their own count together: a
    counter that begins with its first error shows no increase.
    """
    KAFKA_ERRORS.labels(source, error if error in _KAFKA_ERRORS else _OTHER).inc()


def rejoined(source: str, reason: str | None) -> None:
    """Count that the group was left and joined again; as :func:`kafka_error`."""
    REJOINS.labels(source, reason if reason in _REJOINS else _OTHER).inc()


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
    "Flags with something that cannot be read: events are exported unless they say trackEvents: false.",
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
    "flagstream_export_bytes", "Encoded bytes of what was stored or sent.", ["sink"], registry=REGISTRY
)
OBJECTS = Counter(
    "flagstream_export_objects",
    "Objects, requests, records or windows, by outcome: created or existing (already there).",
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
WAITING_MEMORY = Gauge(
    "flagstream_waiting_bytes",
    "Bytes of records that wait: fetched, but not asked for yet (as of the last statistics, every 5 s), or "
    "taken and not produced or in a window yet.",
    ["source", "where"],
    registry=REGISTRY,
)
WINDOW_MEMORY = Gauge(
    "flagstream_export_window_memory_bytes", "Bytes held by windows of all sinks.", registry=REGISTRY
)


CLOSED_BY: Final = (
    "events",
    "bytes",
    "time",
    "memory",
    "schemas",
    "overtaken",
    "revoke",
    "shutdown",
    "plan",
)
"""Everything that closes a window."""


def begin(version: str, librdkafka: str, *, enrich: bool, sinks: Sequence[str]) -> None:
    """Give every series its zero, for ``rate`` and ``increase`` see nothing of a counter that is born with a
    value. Called once, before any work. ``enrich`` and ``sinks``: what the process runs.
    """
    BUILD.labels(version, platform.python_version(), librdkafka).set(1)
    for kind in KINDS:
        PROBLEMS.labels(PROCESS, kind)
    for source in [*(["enrich"] if enrich else []), *sinks]:
        _begin_source(source)
    if enrich:
        _begin_enrich()
    for sink in sinks:
        _begin_sink(sink)


def _begin_source(source: str) -> None:
    ASSIGNED.labels(source)
    STOPPED.labels(source)
    for where in ("fetched", "taken"):
        WAITING_MEMORY.labels(source, where)
    for kind in KINDS:
        PROBLEMS.labels(source, kind)
    for error in (*_KAFKA_ERRORS, _OTHER):
        KAFKA_ERRORS.labels(source, error)
    for reason in (*_REJOINS, _OTHER):
        REJOINS.labels(source, reason)
    for kind in ("refused", "unavailable"):
        REGISTRY_FAILURES.labels(source, kind)
    stage = source if source == "enrich" else f"sink.{source}"
    for outcome in ("committed", "aborted"):
        TRANSACTIONS.labels(stage, outcome)


def _begin_enrich() -> None:
    TRANSACTION_SECONDS.labels("enrich")
    EVENTS.labels("enriched", "")
    EVENTS.labels("dropped", "untracked")
    for reason in REASONS:
        EVENTS.labels("dead", reason)


def _begin_sink(sink: str) -> None:
    for metric in (EXPORTED, EXPORTED_BYTES, DELIVERY_SECONDS):
        metric.labels(sink)
    for reason in CLOSED_BY:
        WINDOWS.labels(sink, reason)
    for outcome in ("created", "existing"):
        OBJECTS.labels(sink, outcome)
    for kind in ("refused", "unavailable"):
        DELIVERY_FAILURES.labels(sink, kind)
    for reason in REASONS:
        REJECTED.labels(sink, reason)


def show(health: Health, assigned: Mapping[str, Collection[object]]) -> None:
    """Set what is measured only when somebody asks: ``assigned`` are the partitions of each source."""
    READY.set(health.ready)
    for source, stopped in health.stopped.items():
        STOPPED.labels(source).set(len(stopped()))
    for source, partitions in assigned.items():
        ASSIGNED.labels(source).set(len(partitions))
    found = health.problems()
    for source in (PROCESS, *assigned):
        counts = counted(found.get(source, ()))
        for kind in {*KINDS, *counts}:
            PROBLEMS.labels(source, kind).set(counts.get(kind, 0))


def text() -> bytes:
    """Return the metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)
