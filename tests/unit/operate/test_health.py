"""Health: what is wrong, what keeps the process from being ready, and which thread hangs."""

import ast
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import flagstream
from flagstream.config import load
from flagstream.host import Host
from flagstream.operate.health import ALIVE_SECONDS, KINDS, Health, Problem
from flagstream.operate.pages import healthy, live, ready

WORKER = Path(flagstream.__file__).parent
FULL = Problem("sink_unavailable", "deliver t-0: unavailable: disk full", "t-0")


def test_a_process_without_problems_is_ready_and_healthy() -> None:
    """No checks, or checks that find nothing, are no problem."""
    health = Health()
    health.checks["enrich"] = lambda: iter(())

    assert ready(health) == ({"ready": True, "problems": {}, "kinds": {}}, 200)
    assert healthy(health, ()) == ({"healthy": True, "problems": {}, "kinds": {}}, 200)
    assert live(health) == ({"live": True, "stuck": []}, 200)


def test_problems_are_told_by_source() -> None:
    """What checks find now, and what a stage that is starting waits for; on both pages, and counted."""
    health = Health(
        starting={"enrich": Problem("flags", "no flags"), "archive": Problem("starting", "starts")},
    )
    found = [FULL, FULL]
    health.checks["archive"] = lambda: iter(found)

    body, status = healthy(health, ("archive",))

    problems = {"archive": [FULL.text, FULL.text, "starts"], "enrich": ["no flags"]}
    assert (body["problems"], status) == (problems, 503)
    assert body["kinds"] == {"archive": {"sink_unavailable": 2, "starting": 1}, "enrich": {"flags": 1}}
    assert ready(health)[0]["problems"] == problems
    found.clear()
    health.starting.clear()
    assert health.problems() == {}


def test_pages_show_no_value_that_must_not_be_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values of ``${NAME}`` and of mounted files are masked in the texts of problems, as in the log."""
    monkeypatch.setenv("PLANTED", "hunter2-of-the-file")
    file = tmp_path / "flagstream.toml"
    file.write_text('[sinks.archive]\ntype = "file"\npath = "/data/${PLANTED}"\n')
    health = Host(load(file, enrich=False), enrich=False, sinks=("archive",)).health
    full = Problem("sink_unavailable", "/data/hunter2-of-the-file/t: No space left on device", "t-0")
    health.checks["archive"] = lambda: iter([full])

    for body, _ in (ready(health), healthy(health, ("archive",))):
        assert body["problems"]["archive"] == ["**********/t: No space left on device"]
        assert body["kinds"]["archive"] == {"sink_unavailable": 1}


def test_what_is_wrong_outside_leaves_a_process_ready() -> None:
    """A rollout goes on while a sink is down; the body says what is wrong."""
    health = Health(checks={"archive": lambda: iter([FULL])}, joined={"archive": lambda: True})

    body, status = ready(health)

    assert (body["ready"], status) == (True, 200)
    assert body["problems"] == {"archive": [FULL.text]}
    assert healthy(health, ("archive",))[1] == 503


def test_a_process_is_unready_while_it_starts_is_in_no_group_stops_or_has_lost_a_task() -> None:
    """Each of them alone is reported."""
    assert ready(Health(starting={"enrich": Problem("topic", "missing")}))[1] == 503
    assert ready(Health(joined={"enrich": lambda: True, "archive": lambda: False}))[1] == 503
    body, status = ready(Health(stopping=lambda: True))
    assert (body["problems"], status) == ({"process": ["stopping"]}, 503)
    body, status = ready(Health(dead=lambda: ["watch"]))
    assert (list(body["kinds"]["process"]), status) == (["task_died"], 503)
    assert ready(Health(joined={"enrich": lambda: True}))[1] == 200


def test_health_can_be_asked_of_one_sink() -> None:
    """The problems of others do not count, those of the whole process do."""
    stopping: list[bool] = []
    health = Health(
        checks={"archive": lambda: iter([FULL]), "hook": lambda: iter(())}, stopping=lambda: bool(stopping)
    )

    assert healthy(health, ("archive", "hook"), "archive")[1] == 503
    assert healthy(health, ("archive", "hook"), "hook")[1] == 200
    stopping.append(True)
    assert healthy(health, ("archive", "hook"), "hook")[0]["problems"] == {"process": ["stopping"]}


def test_a_sink_that_the_process_does_not_run_is_not_found() -> None:
    """The answer has the names of those that it runs. The enrich stage is none."""
    for name in ("archvie", "", "enrich"):
        body, status = healthy(Health(), ("hook", "archive"), name)

        assert (body["sinks"], status) == (["archive", "hook"], 404)


def test_a_check_may_find_several_problems() -> None:
    """All of them are listed, in order."""

    def check() -> Iterator[Problem]:
        yield FULL
        yield Problem("kafka", "second")

    found = Health(checks={"enrich": check}).problems()

    assert [problem.text for problem in found["enrich"]] == [FULL.text, "second"]


def test_a_thread_that_does_not_move_is_stuck() -> None:
    """Only that one is stuck, and only after longer than any call to Kafka may take."""
    now = time.monotonic()
    health = Health(
        threads={
            "archive": lambda: now - ALIVE_SECONDS - 1,
            "enrich": lambda: now - ALIVE_SECONDS + 10,
        }
    )

    assert live(health) == ({"live": False, "stuck": ["archive"]}, 503)


def test_kinds_of_problems_are_a_bounded_set_of_labels() -> None:
    """Each that the code makes by name is in the table, in snake case."""
    made = {
        node.args[0].value
        for path in WORKER.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Problem"
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }

    assert made <= KINDS.keys()
    assert [kind for kind in KINDS if not re.fullmatch(r"[a-z]+(_[a-z]+)*", kind)] == []
