"""The alerts of deploy/alerts.yaml, tested by promtool against series that a real worker gave."""

import json
import math
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from signal import SIGHUP
from typing import Any

import pytest
import yaml
from confluent_kafka.admin import AdminClient

from tests.support.exporting import events
from tests.support.kafka_broker import KafkaBroker
from tests.support.kafka_records import Sent, produce
from tests.support.receiver import Hang, Reply, receiving
from tests.support.running_worker import FLAGS, RunningWorker, Topics, configuration, eventually

RULES = Path(__file__).resolve().parents[2] / "deploy/alerts.yaml"
CLOCKS = {
    "flagstream_behind_seconds",
    "flagstream_since_delivery_seconds",
    "flagstream_delivery_under_way_seconds",
}
"""What grows by itself as long as nothing changes."""

Scrape = dict[str, float]
"""A scrape: values by series, as Prometheus writes them."""


def scrape(worker: RunningWorker) -> Scrape:
    """What Prometheus would get now, with the labels that it adds."""
    found = {}
    for metric in worker.metrics():
        for sample in metric.samples:
            labels = {**sample.labels, "instance": "worker:6066", "job": "flagstream"}
            text = ",".join(f"{name}={json.dumps(value)}" for name, value in sorted(labels.items()))
            found[f"{sample.name}{{{text}}}"] = sample.value
    return found


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it; fails with the way out where it is not installed."""
    if shutil.which("promtool") is None:
        pytest.fail(
            "no promtool on the path to test the alerts with; install it (Debian: prometheus)", pytrace=False
        )
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True)


def firing(before: Sequence[Scrape], after: Scrape | None, minutes: int, folder: Path) -> set[str]:
    """Return the alerts that fire ``minutes`` after the last of the scrapes ``before``, each a minute apart:
    from then on the worker gives the scrape ``after``, with clocks that run; None: it gives nothing.
    """
    series = sorted({name for one in (*before, after or {}) for name in one})
    inputs = [{"series": name, "values": _values(name, before, after, minutes)} for name in series]
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": inputs,
                "promql_expr_test": [
                    {
                        "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": f"{len(before) + minutes - 1}m",
                        "exp_samples": [],
                    }
                ],
            }
        ],
    }
    file = folder / "alerts-test.yaml"
    file.write_text(yaml.safe_dump(test))
    ran = promtool("test", "rules", file)
    said = ran.stdout + ran.stderr
    assert ran.returncode in (0, 1), said
    assert "got" in said or ran.returncode == 0, said
    return {rule["alert"] for rule in rules() if f'alertname="{rule["alert"]}"' in said}


def rules() -> list[dict[str, Any]]:
    """The alerts of the file."""
    [group] = yaml.safe_load(RULES.read_text())["groups"]
    return list(group["rules"])


def _values(name: str, before: Sequence[Scrape], after: Scrape | None, minutes: int) -> str:
    values = [_value(one.get(name)) for one in before]
    last = None if after is None else after.get(name)
    if last is None or math.isnan(last):
        return " ".join([*values, *[_value(last)] * minutes])
    step = 60 if name.partition("{")[0] in CLOCKS and last > 0 else 0
    return " ".join([*values, f"{last}+{step}x{minutes}"])


def _value(value: float | None) -> str:
    return "_" if value is None else "NaN" if math.isnan(value) else str(value)


class Recorded:
    """Scrapes of one worker: at rest, and in each of its troubles."""

    def __init__(self, rest: Sequence[Scrape], troubles: dict[str, Scrape]) -> None:
        self.rest = rest
        self.troubles = troubles


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A worker with a webhook that runs into one trouble after the other, on a broker of its own."""
    folder = tmp_path_factory.mktemp("alerts")
    troubles: dict[str, Scrape] = {}
    with KafkaBroker() as broker, receiving() as receiver:
        bootstrap = broker.bootstrap_servers
        topics = Topics.create(AdminClient({"bootstrap.servers": bootstrap}), "alerts")
        hook = {
            "type": "webhook",
            "endpoint_url": receiver.url,
            "allow_private_addresses": True,
            "flush_interval": "200ms",
            "breaker_pause": "200ms",
            "timeout": "60s",
        }
        config = configuration(bootstrap, folder, topics, sinks={"hook": hook})
        with RunningWorker(config, folder) as worker:
            worker.healthy()
            rest = [scrape(worker)]
            produce(bootstrap, topics.output, [Sent(None, value) for value in events(5)])
            eventually(lambda: worker.value("flagstream_export_events_total") == 5)
            eventually(lambda: worker.value("flagstream_lag_records") == 0)
            rest += [scrape(worker), scrape(worker)]

            produce(bootstrap, topics.ingest, [Sent(None, b"not JSON")] * 20_000)
            eventually(lambda: worker.value("flagstream_enrich_events_total", outcome="dead") == 20_000)
            troubles["poison burst"] = scrape(worker)

            for name, answer in (("refused", Reply(403)), ("unavailable", Reply(503)), ("hangs", Hang())):
                receiver.answer = lambda request, answer=answer: answer  # type: ignore[misc]
                produce(bootstrap, topics.output, [Sent(None, value) for value in events(5)])
                kind = "delivery_under_way" if name == "hangs" else f"sink_{name}"
                eventually(lambda kind=kind: worker.value("flagstream_problems", kind=kind) >= 1)  # type: ignore[misc]
                eventually(lambda: worker.value("flagstream_lag_records", source="hook") > 0)
                troubles[name] = scrape(worker)
                if name != "hangs":
                    receiver.answer = lambda request: Reply()
                    worker.send(SIGHUP)
                    eventually(lambda: worker.value("flagstream_lag_records", source="hook") == 0)

            (folder / "flags.yaml").write_text("broken: [")
            eventually(lambda: worker.value("flagstream_failing_flag_sources") == 1)
            troubles["flags broken"] = scrape(worker)
            (folder / "flags.yaml").write_text(FLAGS + "\nbad: {variations: 7}\n")
            eventually(lambda: worker.value("flagstream_invalid_flags") == 1)
            troubles["flags invalid"] = scrape(worker)

            broker.stop()
            eventually(lambda: worker.value("flagstream_assigned_partitions") == 0)
            troubles["brokers away"] = scrape(worker)
            broker.start()
    return Recorded(rest, troubles)


def test_the_rules_are_valid() -> None:
    """Prometheus takes the rules as they are."""
    ran = promtool("check", "rules", RULES)

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_worker_at_rest_sets_off_nothing(recorded: Recorded, tmp_path: Path) -> None:
    """Nothing fires for an hour, with the last delivery ever longer ago."""
    assert firing(recorded.rest, recorded.rest[-1], 60, tmp_path) == set()


@pytest.mark.parametrize(
    ("trouble", "minutes", "expected"),
    [
        ("poison burst", 2, {"FlagstreamDeadLetters"}),
        ("refused", 2, {"FlagstreamSinkRefuses", "FlagstreamDeadLetters"}),
        ("unavailable", 8, {"FlagstreamProblem", "FlagstreamDeadLetters", "FlagstreamSinkRefuses"}),
        ("unavailable", 30, {"FlagstreamProblem", "FlagstreamNothingDelivered"}),
        ("hangs", 30, {"FlagstreamProblem", "FlagstreamDeliveryHangs", "FlagstreamNothingDelivered"}),
        (
            "flags broken",
            30,
            {
                "FlagstreamFlagSourceFailing",
                "FlagstreamProblem",
                "FlagstreamDeliveryHangs",
                "FlagstreamNothingDelivered",
            },
        ),
        (
            "flags invalid",
            30,
            {
                "FlagstreamInvalidFlags",
                "FlagstreamProblem",
                "FlagstreamDeliveryHangs",
                "FlagstreamNothingDelivered",
            },
        ),
        (
            "brokers away",  # its session has ended by then
            20,
            {
                "FlagstreamInvalidFlags",
                "FlagstreamNobodyReads",
                "FlagstreamNotReady",
                "FlagstreamProblem",
            },
        ),
    ],
)
def test_troubles_set_off_their_alerts(
    trouble: str, minutes: int, expected: set[str], recorded: Recorded, tmp_path: Path
) -> None:
    """Each trouble sets off its own alerts and no others, and the first burst does."""
    assert firing(recorded.rest, recorded.troubles[trouble], minutes, tmp_path) == expected


def test_a_worker_that_is_gone_sets_off_its_alert(recorded: Recorded, tmp_path: Path) -> None:
    """There is no series then that could say so."""
    assert firing(recorded.rest, None, 20, tmp_path) == {"FlagstreamAbsent"}


@pytest.mark.parametrize(
    ("alert", "name", "labels", "value"),
    [
        ("FlagstreamNotReady", "flagstream_ready", "", 0),
        ("FlagstreamNobodyReads", "flagstream_assigned_partitions", 'source="hook"', 0),
        ("FlagstreamPartitionStopped", "flagstream_stopped_partitions", 'source="hook"', 3),
        ("FlagstreamLagUnknown", "flagstream_lag_records", 'source="hook"', math.nan),
        ("FlagstreamLogLost", "flagstream_log_lines_lost_total", "", 7),
    ],
)
def test_other_values_of_a_real_series_set_off_the_rest(
    alert: str, name: str, labels: str, value: float, recorded: Recorded, tmp_path: Path
) -> None:
    """What this worker did not run into: its series exist, and one has another value."""
    after = dict(recorded.rest[-1])
    [series] = [key for key in after if key.partition("{")[0] == name and labels in key]
    after[series] = value

    assert firing(recorded.rest, after, 9 if "Lost" in alert else 20, tmp_path) == {alert}


@pytest.mark.parametrize(
    ("alert", "changes"),
    [
        (
            "FlagstreamRetentionNear",
            {"flagstream_retention_margin_records": (5_000, -50), "flagstream_lag_records": (9, 0)},
        ),
        (
            "FlagstreamFallsBehind",
            {"flagstream_lag_records": (10, 10), "flagstream_behind_seconds": (1_000, 0)},
        ),
        ("FlagstreamTransactionsAbort", {"flagstream_transactions_total": (0, 10)}),
    ],
)
def test_courses_of_real_series_set_off_the_rest(
    alert: str, changes: dict[str, tuple[float, float]], recorded: Recorded, tmp_path: Path
) -> None:
    """What takes hours to come about: the series of the worker, with another course."""
    course = []
    for minute in range(90):
        one = dict(recorded.rest[-1])
        for name, (start, step) in changes.items():
            for series in one:
                wanted = 'source="hook"' in series or 'outcome="aborted"' in series
                if series.partition("{")[0] == name and wanted:
                    one[series] = start + step * minute
        one = {key: 0.0 if "since_delivery" in key else value for key, value in one.items()}
        course.append(one)

    assert firing(course[:-1], course[-1], 1, tmp_path) == {alert}


def test_every_alert_is_tested() -> None:
    """A new rule needs a trouble."""
    text = Path(__file__).read_text()

    assert [rule["alert"] for rule in rules() if f'"{rule["alert"]}"' not in text] == []
