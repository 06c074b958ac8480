"""Metrics: Prometheus can read them, and names say what is counted and in which unit."""

import ast
import platform
import re
from pathlib import Path
from typing import get_args

from prometheus_client.parser import text_string_to_metric_families

import flagstream
from flagstream.dead_letters import REASONS
from flagstream.operate import metrics
from flagstream.operate.health import KINDS, Health, Problem
from flagstream.outcomes import DeadReason

WORKER = Path(flagstream.__file__).parent

UNITS = {"seconds", "bytes", "records", "ratio", "info", "ready"}
COUNTED = {
    "events",
    "flags",
    "windows",
    "objects",
    "transactions",
    "failures",
    "errors",
    "rejoins",
    "letters",
    "variations",
    "partitions",
    "problems",
    "sources",
    "lost",
}


def test_the_page_is_in_prometheus_text_format() -> None:
    """Its own parser reads it, and each metric has a help text that is a sentence."""
    families = list(text_string_to_metric_families(metrics.text().decode()))

    assert len(families) >= 15
    assert [family.name for family in families if not family.documentation.endswith(".")] == []


def test_names_end_in_their_unit_or_in_what_they_count() -> None:
    """A name ends in a base unit of Prometheus (seconds, bytes), or in the plural of the things counted."""
    families = [f for f in text_string_to_metric_families(metrics.text().decode()) if f.type != "unknown"]
    names = [family.name for family in families if family.name.startswith("flagstream_")]

    assert [name for name in names if not re.fullmatch(r"flagstream(_[a-z]+)+", name)] == []
    assert [name for name in names if name.rpartition("_")[2] not in UNITS | COUNTED] == []


def test_counters_end_in_total() -> None:
    """Prometheus asks for it, so that a query shows that `rate` applies."""
    metrics.FLAG_ERRORS.inc(0)
    names = {
        sample.name
        for family in text_string_to_metric_families(metrics.text().decode())
        if family.type == "counter"
        for sample in family.samples
        if not sample.name.endswith("_created")
    }

    assert "flagstream_flag_load_failures_total" in names
    assert [name for name in names if not name.endswith("_total")] == []


def test_every_series_exists_from_the_start() -> None:
    """Each series begins with 0: a counter that is born with a value shows no increase, so its alert is
    silent."""
    metrics.begin("1.2.3", "2.16.0", enrich=True, sinks=["begun"])
    samples = {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }

    assert ("flagstream_enrich_events_total", "dead", "invalid_json") in samples  # other tests count there
    assert samples["flagstream_export_dead_letters_total", "foreign", "begun"] == 0
    assert samples["flagstream_export_delivery_failures_total", "refused", "begun"] == 0
    assert samples["flagstream_export_delivery_seconds_count", "begun"] == 0
    assert samples["flagstream_transactions_total", "aborted", "sink.begun"] == 0
    assert samples["flagstream_stopped_partitions", "begun"] == 0
    assert samples["flagstream_registry_failures_total", "refused", "begun"] == 0
    for source in ("begun", "process"):
        for kind in KINDS:
            assert samples["flagstream_problems", kind, source] == 0
    assert ("flagstream_build_info", "2.16.0", platform.python_version(), "1.2.3") in samples


def test_problems_and_readiness_are_metrics() -> None:
    """The metrics say what the pages say, and are gone when it is over."""
    found = [Problem("sink_refused", "no"), Problem("sink_refused", "no"), Problem("kafka", "away")]
    health = Health(checks={"shown": lambda: iter(found)}, joined={"shown": lambda: True})
    value = metrics.REGISTRY.get_sample_value

    metrics.show(health, {"shown": [1, 2]})

    assert value("flagstream_problems", {"source": "shown", "kind": "sink_refused"}) == 2
    assert value("flagstream_problems", {"source": "shown", "kind": "kafka"}) == 1
    assert value("flagstream_assigned_partitions", {"source": "shown"}) == 2
    assert value("flagstream_ready") == 1
    found.clear()
    health.stopping = lambda: True
    metrics.show(health, {"shown": []})
    assert value("flagstream_problems", {"source": "shown", "kind": "sink_refused"}) == 0
    assert value("flagstream_ready") == 0
    assert value("flagstream_problems", {"source": "process", "kind": "stopping"}) == 1


def test_the_errors_of_librdkafka_are_a_bounded_set_of_labels() -> None:
    """Errors without a series of their own count together."""
    metrics.begin("", "", enrich=False, sinks=["bounded"])
    value = metrics.REGISTRY.get_sample_value

    for error in ("_TRANSPORT", "_BAD_MSG", "_STALE"):
        metrics.kafka_error("bounded", error)
    metrics.rejoined("bounded", "REQUEST_TIMED_OUT")

    assert value("flagstream_kafka_errors_total", {"source": "bounded", "error": "_TRANSPORT"}) == 1
    assert value("flagstream_kafka_errors_total", {"source": "bounded", "error": "other"}) == 2
    assert value("flagstream_group_rejoins_total", {"source": "bounded", "reason": "other"}) == 1


def test_every_reason_of_a_dead_letter_has_a_series() -> None:
    """The reasons are those that the code names."""
    named = {
        reason.value
        for path in WORKER.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        for place in [{"Dead": 0, "Reject": 1}.get(node.func.id)]
        if place is not None and len(node.args) > place
        for reason in [node.args[place]]
        if isinstance(reason, ast.Constant)
    }

    assert named | set(get_args(DeadReason)) <= set(REASONS)
