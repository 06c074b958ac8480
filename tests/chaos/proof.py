"""Runs the exactly-once proof: `python -m tests.chaos.proof`, which is `make proof` (docs/proof.md)."""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import pytest
from confluent_kafka.admin import AdminClient

from flagstream.export.phases import UnknownTransition
from tests.chaos.archive import copied
from tests.chaos.checker import Subject, Verdict, check
from tests.chaos.destinations import Destination, SinkName, destination
from tests.chaos.director import ScenarioFailed
from tests.chaos.fleet import Fact, Fleet
from tests.chaos.scenario import PARTITIONS, SHORT, SINK, WHOLE, Cluster, Scenario, Script, in_layout
from tests.chaos.stream import FLAGS
from tests.support.kafka_limits import BrokerLimits
from tests.support.kafka_records import create_topic

Protocol = Literal["classic", "consumer"]

SESSION_MS = 3_000
"""Session time-out under the classic protocol, unless the broker wants it longer."""
CONFIGURATION = """\
name = "{name}"
[kafka]
bootstrap_servers = "{bootstrap_servers}"
group_protocol = "{protocol}"
session_timeout = "{session_ms}ms"
[kafka.consumer_properties]
{heartbeat}
[topics]
ingest = "{ingest}"
output = "{output}"
dead_letters = "{dead_letters}"
[enrich]
transaction_timeout = "3s"
[flags]
path = "{flags}"
[sinks.archive]
{sink}
max_events = 5_000
flush_interval = "1s"
[web]
enabled = false
[log]
format = "json"
"""


@dataclass(frozen=True)
class Trial:
    """One run: what is proved, of which sink, on how many events."""

    protocol: Protocol
    sink: SinkName
    events: int
    short: bool = False

    @property
    def script(self) -> Script:
        script = SHORT if self.short else WHOLE
        return in_layout(script) if self.sink == "parquet-hive" else script


@dataclass(frozen=True)
class Summary:
    """What a run came to. `failures` is empty when the proof holds."""

    trial: Trial
    seconds: float
    verdict: Verdict
    kills: Counter[str]
    exit_codes: Counter[int]
    taken_over: int
    already_there: int
    half_there: int
    """Windows of which a second delivery found some objects there, and some not."""
    export_zombies: list[str]
    enrich_zombies: list[str]
    windows: Counter[str]
    warnings: Counter[str]
    unknown_transitions: list[str]
    """Processes that ended because the table of an export's phases does not have what happened."""

    @property
    def failures(self) -> list[str]:
        """What the checker found, and incidents without which a run proves nothing."""
        needed = {
            "planned windows taken over and delivered again": self.taken_over,
            "objects found already there": self.already_there,
        }
        if "export.indexed" in self.trial.script.points:
            needed["windows found half stored"] = self.half_there
        if self.trial.script.others:
            needed["export zombies refused"] = len(self.export_zombies)
            needed["enrich zombies refused"] = len(self.enrich_zombies)
        missing = [f"{what}: none, at least one is needed" for what, count in needed.items() if count == 0]
        missing += [
            f"nobody died at {point}" for point in sorted(self.trial.script.points - self.kills.keys())
        ]
        missing += [f"not in the table of phases: {text}" for text in self.unknown_transitions]
        return [f"{kind}: {text}" for kind, text in self.verdict.problems.items()] + missing

    def __str__(self) -> str:
        verdict = self.verdict
        objects = sum(verdict.sizes.values())
        lines = {
            "records in": f"{verdict.records}: {verdict.exported} to be exported, {verdict.untracked} of "
            f"untracked flags, {verdict.broken} broken",
            "unseen": f"{verdict.unseen} offsets of the output topic: aborted records, and markers",
            "windows": f"{len(verdict.sizes)} in {objects} objects; closed by {_counts(self.windows)}",
            "killed": f"{self.kills.total()}: {_counts(self.kills)}",
            "exit codes": _counts(self.exit_codes),
            "windows taken over": self.taken_over,
            "objects already there": f"{self.already_there}; windows half there: {self.half_there}",
            "export zombies refused": f"{len(self.export_zombies)}: {'; '.join(self.export_zombies)}",
            "enrich zombies refused": f"{len(self.enrich_zombies)}: {'; '.join(self.enrich_zombies)}",
            "warnings": _counts(self.warnings),
            "verdict": "EXACTLY ONCE" if not self.failures else "FAILED",
        }
        title = f"── {self.trial.sink}, {self.trial.protocol} protocol, {self.seconds:.0f} s "
        body = "\n".join(f"{name:>23}  {value}" for name, value in lines.items())
        return "\n".join([f"{title:─<110}", body, *(f"  ✗ {failure}" for failure in self.failures)])


def prove(bootstrap_servers: str, trial: Trial, folder: Path, say: Callable[[str], None]) -> Summary:
    """Play the scenario and examine what it left. Logs, configuration and files are in `folder`.

    Raises ScenarioFailed when something awaited did not happen; whether the proof holds is in the summary.
    """
    with destination(trial.sink, folder / "archive") as to:
        try:
            summary = _prove(bootstrap_servers, trial, to, folder, say)
        except ScenarioFailed:
            _keep(to, folder / "archive")
            raise
        if summary.failures:
            _keep(to, folder / "archive")
        return summary


def _keep(to: Destination, folder: Path) -> None:
    """What a server holds is gone with it: copy it to where files are anyway."""
    for name, data in copied(to.archive.store):
        path = folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def _prove(
    bootstrap_servers: str, trial: Trial, to: Destination, folder: Path, say: Callable[[str], None]
) -> Summary:
    began = time.monotonic()
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    ingest, output, dead = (
        create_topic(admin, f"proof-{trial.protocol}-{role}", PARTITIONS) for role in ("in", "out", "dead")
    )
    group = ingest  # unique, like the topic
    session = BrokerLimits.of(admin).session_ms(trial.protocol)
    if trial.protocol == "classic":
        session = max(session, SESSION_MS)
    (folder / "flags.yaml").write_text(FLAGS)
    configuration = folder / "flagstream.toml"
    configuration.write_text(
        CONFIGURATION.format(
            name=group,
            bootstrap_servers=bootstrap_servers,
            protocol=trial.protocol,
            session_ms=session,
            heartbeat=f'"heartbeat.interval.ms" = {session // 6}' if trial.protocol == "classic" else "",
            ingest=ingest,
            output=output,
            dead_letters=dead,
            flags=folder / "flags.yaml",
            sink=to.section,
        )
    )
    cluster = Cluster(bootstrap_servers, ingest, output, f"{group}.enrich", f"{group}.sink.{SINK}")
    with Fleet(folder, configuration) as fleet:
        scenario = Scenario(trial.script, fleet, cluster, trial.events, say)
        scenario.run()
    say(f"all workers stopped after {time.monotonic() - began:.0f} s; checking")
    subject = Subject(
        bootstrap_servers, ingest, output, dead, cluster.sink_group, to.archive, scenario.produced
    )
    return _summary(trial, fleet, scenario, check(subject), time.monotonic() - began)


def _summary(trial: Trial, fleet: Fleet, scenario: Scenario, verdict: Verdict, seconds: float) -> Summary:
    facts = list(fleet.facts())
    delivered = [fact for fact in facts if fact["event"] == "window_delivered"]
    return Summary(
        trial,
        seconds,
        verdict,
        scenario.director.kills,
        scenario.director.exit_codes,
        taken_over=sum(bool(fact["taken_over"]) for fact in delivered),
        already_there=sum(fact["already_there"] for fact in delivered),
        half_there=sum(0 < fact["already_there"] < verdict.sizes.get(fact["range"], 0) for fact in delivered),
        export_zombies=scenario.refused["export"],
        enrich_zombies=scenario.refused["enrich"],
        windows=Counter(fact["closed_by"] for fact in delivered),
        warnings=Counter(_warning(fact) for fact in facts if fact.get("level") not in ("debug", "info")),
        unknown_transitions=[
            str(fact.get("error")) for fact in facts if UnknownTransition.__name__ in str(fact)
        ],
    )


def _warning(fact: Fact) -> str:
    """The name of a warning; what librdkafka logs goes by the first word, the name that it has there."""
    return f"librdkafka {fact['event'].split()[0]}" if "logger" in fact else str(fact["event"])


def _counts(counter: Counter[str] | Counter[int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items())) or "none"


def main() -> int:
    """The command. 0 when the proof holds; logs and archive are kept when it does not."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.proof", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="how many (default: %(default)s)")
    parser.add_argument("--protocol", choices=["both", *get_args(Protocol)], default="both")
    parser.add_argument(
        "--sink", choices=get_args(SinkName), default="file", help="where to (default: %(default)s)"
    )
    chosen = parser.parse_args()
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if not servers:
        print("KAFKA_BOOTSTRAP_SERVERS is not set: run `make proof`, which starts a Kafka", file=sys.stderr)
        return 2
    protocols = get_args(Protocol) if chosen.protocol == "both" else (chosen.protocol,)
    return max([_run(servers, Trial(protocol, chosen.sink, chosen.events)) for protocol in protocols])


def _run(servers: str, trial: Trial) -> int:
    folder = Path(tempfile.mkdtemp(prefix=f"flagstream-proof-{trial.sink}-{trial.protocol}-"))
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {trial.protocol}: {text}", flush=True)

    try:
        summary = prove(servers, trial, folder, say)
    except ScenarioFailed as error:
        print(f"FAILED: {error}\nLogs and archive: {folder}", flush=True)
        return 1
    except pytest.fail.Exception as error:
        print(f"error: {error}", file=sys.stderr)  # a server that cannot be had
        return 2
    print(summary, flush=True)
    if summary.failures:
        print(f"Logs and archive: {folder}", flush=True)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
