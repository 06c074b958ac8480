"""A word planted in the secrets of a worker's HTTP clients is nowhere to be read while everything fails."""

from base64 import b64encode
from contextlib import ExitStack
from pathlib import Path

from click.testing import CliRunner
from confluent_kafka.admin import AdminClient

from flagstream.cli import cli
from tests.support.echoing import answering, echo
from tests.support.exporting import event
from tests.support.kafka_records import Sent, produce
from tests.support.running_worker import RunningWorker, Topics, await_records, configuration, to_toml

WORD = "hunter2"


def test_nothing_shows_a_secret(admin: AdminClient, bootstrap: str, tmp_path: Path) -> None:
    """Servers refuse, with answers that quote the whole request. Searched are the log, the pages, the
    metrics, `check`, `render`, and the dead letters with their headers.
    """
    topics = Topics.create(admin, "secrets")
    produce(bootstrap, topics.output, [Sent(None, event(number), None, 0) for number in range(3)])
    with ExitStack() as stack:

        def server(status: int) -> str:
            return f"http://user:{WORD}@127.0.0.1:{stack.enter_context(answering(echo(str(status))))}"

        def hook(status: int) -> dict[str, object]:
            return {
                "type": "webhook",
                "endpoint_url": f"{server(status)}/{WORD}?token={WORD}",
                "secret": WORD,
                "headers": {"X-Key": f"Bearer {WORD}"},
                "allow_private_addresses": True,
                "flush_interval": "100ms",
                "on_refused": "dead_letter",
                "refused_after": "1s",
            }

        config = configuration(
            bootstrap,
            tmp_path,
            topics,
            log={"format": "json", "level": "debug"},
            sinks={f"hook-{status}": hook(status) for status in (409, 404, 410, 500)},
        )
        relay = {"type": "relay", "url": server(500), "api_key": WORD, "name": "relay"}
        http = {"type": "http", "url": f"{server(401)}/f?token={WORD}", "headers": {"Authorization": WORD}}
        config["flags"] = {"sources": {"0": http, "1": relay}, "poll_interval": "200ms"}
        with RunningWorker(config, tmp_path) as worker:
            letters = await_records(bootstrap, topics.dead_letters, 6)  # of 409 and 404
            worker.await_event("partition_stopped")
            worker.await_event("sink_failed", sink="hook-500")
            worker.await_event("stage_waits", stage="enrich")
            pages = [worker.get(path)[1] for path in ("/ready", "/health", "/metrics")]
            log = worker.log
        file = tmp_path / "secrets.toml"
        file.write_text(to_toml(config))
        reported = [
            CliRunner().invoke(cli, [command, "-c", str(file)]).output for command in ("check", "render")
        ]
    said = [log, *pages, *reported, *(f"{letter.value!r}{letter.headers}" for letter in letters)]
    assert all(said)
    hidden = (WORD, b64encode(f"user:{WORD}".encode()).decode())
    assert [text for text in said if any(word in text for word in hidden)] == []
