"""The demo: a broker, applications and the worker in one process, with a view of what goes in and comes out.

Sample events go to the ingest topic of the embedded broker; the real worker, both stages and a sink of files
or of objects in a local S3 server, takes them from there; at the end all is read back and compared with what
was sent.
"""

import asyncio
import itertools
import random
import time
from contextlib import closing, redirect_stderr
from importlib import resources
from pathlib import Path

import yaml

from flagstream.config.flags import FlagSettings
from flagstream.config.settings import (
    EnrichSettings,
    KafkaSettings,
    LoggingSettings,
    Settings,
    WebSettings,
)
from flagstream.demo.ledger import Ledger
from flagstream.demo.places import Kind, place
from flagstream.demo.samples import Samples
from flagstream.demo.session import FLUSH_SECONDS, SINK, Session
from flagstream.demo.summary import summarize
from flagstream.demo.view import Output, view
from flagstream.demo.watch import Watch
from flagstream.errors import ExitCode, FlagstreamError
from flagstream.faust_app import free_port
from flagstream.kafka.embedded import EmbeddedBroker, Follower
from flagstream.operate.logging import configure
from flagstream.sinks.settings import SinkSettings

OUTPUT = Path("demo-output")


class NoFolder(FlagstreamError):
    """The folder for what the demo writes cannot be made; the message says why."""


def run(seconds: float | None, sink: Kind = "file") -> int:
    """Run the demo for ``seconds``, or until SIGINT or SIGTERM; returns the exit code.

    Everything it writes is in a fresh folder below ``demo-output``. The exit code is the worker's, or 1 when
    what was exported is not what was sent. Raises NoFolder where the folder cannot be made, SeaweedMissing
    if there is no S3 server to start.
    """
    began = time.monotonic()
    console = Output()
    folder = _fresh_folder()
    flags = _write_flags(folder)
    ledger = Ledger()
    with (
        place(sink, folder / "files", FLUSH_SECONDS) as destination,
        EmbeddedBroker() as broker,
        (folder / "worker.log").open("w") as log,
    ):
        settings = _settings(destination.settings, flags, broker.bootstrap_servers)
        topics = settings.topics
        for topic in (topics.ingest, topics.output, topics.dead_letters):
            broker.create(topic)
        with redirect_stderr(log):  # what is configured now keeps it
            writer = configure(settings.log.format, settings.log.level)
        samples = Samples(yaml.safe_load(flags.read_bytes()), random.Random())
        with (
            closing(Follower(broker.bootstrap_servers, [topics.output, topics.dead_letters])) as follower,
            closing(
                view(console, f"http://{settings.web.host}:{settings.web.port}/metrics   {destination.title}")
            ) as shown,
        ):
            watch = Watch(ledger, follower, destination, SINK, began)
            session = Session(settings, broker, samples, ledger, watch, shown)
            code = asyncio.run(session.run(seconds))
        writer.flush()
        audit = ledger.audit(destination.fetch())
    right = summarize(console, folder, watch.sight, ledger, audit, code, session.stall)
    return int(code) or int(ExitCode.OK if right else ExitCode.UNEXPECTED)


def _fresh_folder() -> Path:
    name = time.strftime("%Y%m%d-%H%M%S")
    for suffix in itertools.chain([""], (f"-{number}" for number in itertools.count(2))):
        folder = OUTPUT / (name + suffix)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise NoFolder(f"{folder.absolute()} cannot be made: {error.strerror}") from error
        return folder
    raise AssertionError("itertools.count ended")


def _write_flags(folder: Path) -> Path:
    path = folder / "flags.yaml"
    path.write_bytes(resources.files("flagstream.demo").joinpath("flags.yaml").read_bytes())
    return path


def _settings(sink: SinkSettings, flags: Path, bootstrap_servers: str) -> Settings:
    """Return what a configuration file for this demo would say; everything else is the default."""
    return Settings(
        name="demo",
        # The embedded broker's KIP-848 assigns partitions in half a second, its classic protocol in three.
        kafka=KafkaSettings(bootstrap_servers=bootstrap_servers, group_protocol="consumer"),
        enrich=EnrichSettings(metadata={"environment": "demo"}),
        flags=FlagSettings(path=flags),
        sinks={SINK: sink},
        web=WebSettings(port=free_port(["127.0.0.1"])),
        log=LoggingSettings(format="json"),
    )
