"""The process ends with the exit code of the first error that it cannot mend."""

import asyncio
from collections.abc import AsyncIterable
from contextlib import suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from flagstream.chunk import Chunk
from flagstream.config.settings import KafkaSettings, Settings, WebSettings
from flagstream.errors import ConfigError, ExitCode, Fatal
from flagstream.faust_app import add_agent, build_app
from flagstream.host import Host
from flagstream.kafka.topics import TopicFacts
from flagstream.operate.health import PROCESS
from flagstream.operate.tasks import TaskEnded
from flagstream.sinks.objects.file import FileSettings


def host(**kafka: str) -> Host:
    settings = Settings(kafka=KafkaSettings.model_validate(kafka), web=WebSettings(enabled=False))
    return Host(settings, enrich=False, sinks=(), facts=TopicFacts())


@pytest.mark.parametrize(
    ("error", "code", "has_trace"),
    [
        (Fatal(ExitCode.KAFKA, "fatal"), ExitCode.KAFKA, False),
        (ConfigError(["wrong"]), ExitCode.CONFIG, False),
        (TaskEnded("the task x returned"), ExitCode.UNEXPECTED, True),
        (ZeroDivisionError(), ExitCode.UNEXPECTED, True),
    ],
)
def test_an_error_has_the_exit_code_of_who_must_act(
    error: Exception, code: ExitCode, has_trace: bool
) -> None:
    """Only what nobody foresaw is logged with a trace."""
    process = host()
    with capture_logs() as lines:
        process.fail(error)
    (line,) = lines
    assert (line["event"], line["exit_code"]) == ("worker_failed", code)
    assert (line["exc_info"] is error) == has_trace
    assert process.health.stopping()


def test_only_the_first_error_counts() -> None:
    """What fails while the process stops is a consequence."""
    process = host()
    with capture_logs() as lines:
        process.fail(Fatal(ExitCode.KAFKA, "first"))
        process.fail(ZeroDivisionError())
    assert [(line["error"], line["exit_code"]) for line in lines] == [("first", ExitCode.KAFKA)]


def test_a_fenced_process_with_an_instance_names_the_likely_reason() -> None:
    """Two processes with one kafka.instance fence each other."""
    process = host(instance="pod-0")
    with capture_logs() as lines:
        process.fail(Fatal(ExitCode.FENCED, "fenced"))
    assert lines[0]["error"] == 'fenced; are there two processes with kafka.instance = "pod-0"?'


def test_the_process_fails_however_an_agent_ends() -> None:
    """Faust would start an agent that returned, raised or was cancelled again after its chunk."""

    async def returns(chunks: AsyncIterable[Chunk]) -> None: ...

    async def raises(chunks: AsyncIterable[Chunk]) -> None:
        raise ZeroDivisionError

    async def is_cancelled(chunks: AsyncIterable[Chunk]) -> None:
        raise asyncio.CancelledError

    async def outcome(name: str) -> list[str]:
        failures: list[BaseException] = []
        app = build_app("test", WebSettings(enabled=False))
        bodies = {"returns": returns, "raises": raises, "is cancelled": is_cancelled}
        add_agent(app, name, bodies[name], failures.append)
        agent = next(iter(app.agents.values()))
        with suppress(ZeroDivisionError, asyncio.CancelledError):
            await agent.fun(None)
        return [repr(failure) for failure in failures]

    assert asyncio.run(outcome("returns")) == ["TaskEnded('the agent returns returned')"]
    assert asyncio.run(outcome("raises")) == ["ZeroDivisionError()"]
    assert asyncio.run(outcome("is cancelled")) == ["TaskEnded('the agent is cancelled was cancelled')"]


def test_every_stage_reports_to_the_pages(tmp_path: Path) -> None:
    """Each stage has a source, and is asked whether it lives, has joined, has stopped, what is wrong."""
    settings = Settings(
        sinks={"archive": FileSettings(type="file", path=tmp_path)}, web=WebSettings(enabled=False)
    )
    names = {"enrich", "archive"}

    async def main() -> None:
        process = Host(settings, enrich=True, sinks=("archive",), facts=TopicFacts())
        health = process.health
        assert process.sources.keys() == names
        assert health.threads.keys() == health.joined.keys() == health.stopped.keys() == names
        assert health.checks.keys() == names | {PROCESS}
        assert health.problems() == {}
        assert not health.ready

    asyncio.run(main())
