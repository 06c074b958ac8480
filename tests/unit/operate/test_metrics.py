"""Metrics: Prometheus can read them, and names say what is counted and in which unit."""

import re

from prometheus_client.parser import text_string_to_metric_families

from worker.operate import metrics

UNITS = {"seconds", "bytes", "records", "ratio"}
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
    "sources",
}


def test_the_page_is_in_prometheus_text_format() -> None:
    """Its own parser reads it, and each metric has a help text that is a sentence."""
    families = list(text_string_to_metric_families(metrics.text().decode()))

    assert len(families) >= 15
    assert [family.name for family in families if not family.documentation.endswith(".")] == []


def test_names_end_in_their_unit_or_in_what_they_count() -> None:
    """A base unit of Prometheus (seconds, bytes), or the plural of the things counted."""
    families = [f for f in text_string_to_metric_families(metrics.text().decode()) if f.type != "unknown"]
    names = [family.name for family in families if not family.name.endswith("_created")]

    assert [name for name in names if not re.fullmatch(r"flagstream(_[a-z]+)+", name)] == []
    assert [name for name in names if name.rpartition("_")[2] not in UNITS | COUNTED] == []


def test_counters_end_in_total() -> None:
    """As Prometheus has it, so that a query shows that `rate` applies."""
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
