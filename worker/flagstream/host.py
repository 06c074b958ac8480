"""The process: one Faust app with the agents it was told to run, from start to SIGTERM.

Faust gives the life cycle, the agents and the web server; its own Kafka clients stay off (:class:`Boot`).
Each stage is one agent on a channel of chunks, fed by a :class:`flagstream.kafka.source.ChunkSource`.
"""

import asyncio
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import faust
import structlog
from confluent_kafka import libversion
from faust.app.base import BootStrategy
from faust.types import ChannelT

from flagstream import __version__, crashpoints
from flagstream.chunk import Chunk
from flagstream.config import mask_of
from flagstream.config.settings import Settings
from flagstream.enrich.agent import EnrichStage
from flagstream.enrich.transform import Transform
from flagstream.errors import ConfigError, ExitCode, Fatal
from flagstream.export.budget import MemoryBudget
from flagstream.export.stage import ExportStage
from flagstream.flag_sources.opening import watch
from flagstream.flag_sources.watching import FlagWatch, report_flags
from flagstream.flags import FlagFileError, FlagSet
from flagstream.kafka import properties
from flagstream.kafka.consumer import Stage
from flagstream.kafka.earlier_output import NotTold, earlier_output
from flagstream.kafka.ends import TopicEnds
from flagstream.kafka.progress import partitions_of
from flagstream.kafka.source import ChunkSource
from flagstream.kafka.topics import TopicFacts, TopicIds, TopicsNotReady, prepare_topics
from flagstream.kafka.transactions import TransactionalProducer
from flagstream.memory import MemoryShare
from flagstream.operate import metrics
from flagstream.operate.health import ALIVE_SECONDS, PROCESS, Health, Problem
from flagstream.operate.ignored_errors import IgnoredErrors
from flagstream.operate.logging import configure, end_process, lines_lost
from flagstream.operate.lost_lines import LostLines
from flagstream.operate.pages import add as add_pages
from flagstream.operate.retry import Backoff
from flagstream.operate.tasks import TaskEnded, Tasks
from flagstream.operate.watchdog import Watchdog
from flagstream.sinks.protocol import ConfiguredTransactionalSink
from flagstream.sinks.registry import build
from flagstream.topic_formats.building import ingest_decoder, output_decoder, output_encoder
from flagstream.topic_formats.registry import RegistryError
from flagstream.units import Start

log = structlog.get_logger(__name__)
T = TypeVar("T")

CHANNEL_CHUNKS = 2
"""Chunks that wait for an agent: one more than it works on, so that it never waits for the next."""
RETRY_SECONDS, LONGEST_RETRY_SECONDS = 1.0, 5.0
"""Between tries of what has to be there before a stage can start: brokers, topics, flags."""
ENDS_SECONDS = 3.0
"""Between two questions where partitions end, of which the lag is computed."""
GRACE_SECONDS = 15.0
"""For leaving the groups after the shutdown budget is used up; then the process ends itself."""


class Boot(BootStrategy):
    """Agents, services and web, but none of Faust's Kafka clients."""

    enable_kafka = False
    enable_sensors = False


class App(faust.App):
    """Faust's app without folders for tables that we do not have."""

    BootStrategy = Boot

    async def on_first_start(self) -> None:
        """Nothing to prepare: no tables, no recovery."""


def run(settings: Settings, *, enrich: bool, sinks: Sequence[str]) -> None:
    """Run the worker until SIGTERM, SIGINT or an error that it cannot mend; ends the process with its exit
    code.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the host has a use for it
    configure(settings.log.format, settings.log.level, mask_of(settings).whole)
    for warning in settings.warnings:
        log.warning("configuration_warning", problem=warning)
    _arm_crash_points()

    async def main() -> None:
        code = ExitCode.UNEXPECTED
        try:
            code = await Host(settings, enrich=enrich, sinks=sinks).run()
        except BaseException as error:
            log.critical("worker_failed", error=str(error), exit_code=int(code), exc_info=error)
        finally:
            end_process(code)  # the interpreter would wait for threads, and a delivery that hangs has one

    asyncio.run(main())


def _arm_crash_points() -> None:
    text = os.environ.get("FLAGSTREAM_CRASH", "")
    if os.environ.get("FLAGSTREAM_TEST_CRASH_POINTS") == "allowed":
        crashpoints.arm(text)
    elif text:
        log.warning("crash_points_ignored", reason="FLAGSTREAM_TEST_CRASH_POINTS=allowed is not set")


@dataclass(frozen=True, slots=True)
class Component:
    """A stage in this process: how it is started, emptied at the end, and what is wrong with it."""

    name: str
    start: Callable[[], Awaitable[None]]
    drain: Callable[[float], Awaitable[None]]
    close: Callable[[], Awaitable[None]]


class Host:
    """One process. ``facts`` about the topics need not be asked for where they are given (the built-in broker
    of the demo cannot answer)."""

    def __init__(
        self, settings: Settings, *, enrich: bool, sinks: Sequence[str], facts: TopicFacts | None = None
    ) -> None:
        self._stop = asyncio.Event()
        self._name_is_looked_at = False
        self.health = Health(stopping=self._stop.is_set, mask=mask_of(settings).whole)
        self.sources: dict[str, ChunkSource] = {}
        self._stages: dict[str, EnrichStage | ExportStage] = {}
        self._flag_watch: FlagWatch | None = None
        self._lost_lines = LostLines(lines_lost)
        self._ignored = IgnoredErrors()
        self.health.checks[PROCESS] = self._lost_lines.problems
        self._settings = settings
        self._sinks = tuple(sinks)
        self._facts = facts
        self._topic_ids = TopicIds(properties.admin_properties(settings))
        self._ends = TopicEnds(properties.admin_properties(settings))
        self._instance = properties.process_instance(settings)
        self._code = ExitCode.OK
        self._started: list[Component] = []
        metrics.begin(__version__, libversion()[0], enrich=enrich, sinks=sinks)
        self._tasks = Tasks(self.fail)
        self.health.dead = lambda: self._tasks.dead
        self._beat = 0.0
        """Changes every second while the event loop runs."""
        self._watchdog = Watchdog(
            self._moved, limit=int(ALIVE_SECONDS), stuck=self._on_stuck, dead=self._on_dead_threads
        )
        self._app = self._build_app()
        # A share each: a dead sink stalls no other, nor the enrich stage.
        self._share = MemoryShare(settings.export.memory_budget // max(1, int(enrich) + len(sinks)))
        self._components = [self._enrich()] if enrich else []
        self._components += [self._sink(name, MemoryBudget(self._share.total)) for name in sinks]

    async def run(self) -> ExitCode:
        """Start, work until told to stop, drain, leave the groups."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        loop.set_exception_handler(self._on_loop_error)
        self._loop = loop
        loop.add_signal_handler(signal.SIGHUP, self._look_now)
        log.info(
            "worker_starting", version=__version__, stages=[component.name for component in self._components]
        )
        self._app.finalize()
        self._app.flow_control.resume()
        try:
            await self._app.start()
        except OSError as error:
            where = f"{self._settings.web.host}:{self._settings.web.port}"
            self.fail(Fatal(ExitCode.CONFIG, f"web.host and web.port ({where}): {error}"))
        for task in filter(_of_faust, asyncio.all_tasks()):  # agents and their supervisors
            task.add_done_callback(self._on_faust_task)
        for component in self._components:
            self._tasks.start(f"start {component.name}", self._start(component))
        self._tasks.start("watch", self._watch(), lasts=True)
        self._tasks.start("follow ends", self._follow_ends(), lasts=True)
        self._watchdog.start()
        # What is alive by now stays. Records and their values come and go without cycles, but would set off
        # a collection every few chunks, and looking through all of Faust each time cost a fifth of the CPU.
        gc.freeze()
        gc.set_threshold(100_000, 20, 100)
        await self._stop.wait()
        await self._shut_down()
        log.info("worker_stopped", exit_code=int(self._code))
        return self._code

    def stop(self) -> None:
        """Deliver what fits the budget and end :meth:`run`."""
        self._stop.set()

    def fail(self, error: BaseException) -> None:
        """An error that this process cannot mend: stop everything in order, with an exit code of its own."""
        if self._stop.is_set():
            return
        if isinstance(error, Fatal):
            self._code = error.code
        else:
            self._code = ExitCode.CONFIG if isinstance(error, ConfigError) else ExitCode.UNEXPECTED
        trace = error if self._code == ExitCode.UNEXPECTED else None
        text, instance = str(error), self._settings.kafka.instance
        if self._code == ExitCode.FENCED and instance:
            text += f'; are there two processes with kafka.instance = "{instance}"?'
        self.stop()
        log.critical("worker_failed", error=text, exit_code=int(self._code), exc_info=trace)

    # ── the stages ────────────────────────────────────────────────────────────

    def _enrich(self) -> Component:
        settings, topics = self._settings, self._settings.topics
        transform = Transform(FlagSet({}), settings.enrich.default_source, settings.enrich.metadata)
        stage = EnrichStage(
            settings.enrich, topics, transform, self._producer("enrich"), self.fail, self._share.pipeline
        )
        channel = self._agent("enrich", stage.run)
        source = self._source(
            "enrich",
            "enrich",
            properties.enrich_group(settings),
            topics.ingest,
            channel,
            stage,
            settings.enrich.start,
        )

        async def start() -> None:
            await self._watch_flags(transform)
            enricher = stage.enricher
            enricher.decoder, enricher.encoder = ingest_decoder(settings), output_encoder(settings)
            if enricher.encoder is not None:
                await self._patiently("enrich", enricher.encoder.open, RegistryError)
            facts = await self._examine("enrich", topics.ingest, topics.output, topics.dead_letters)
            await stage.open(
                facts.limit(topics.output, topics.dead_letters),
                lambda: not self._stop.is_set(),
                lambda: self._topic_id(topics.ingest),
            )
            await self._app.add_runtime_dependency(source)

        async def drain(deadline: float) -> None:
            async with asyncio.timeout_at(deadline):
                await source.pause_all()
                await stage.flush()

        self._watch_stage("enrich", stage, source, settings.enrich.commit_interval)
        return Component("enrich", start, drain, stage.close)

    def _sink(self, name: str, budget: MemoryBudget) -> Component:
        settings, topics = self._settings.sinks[name], self._settings.topics
        sink = build(settings)
        needed = [topics.output, topics.dead_letters]
        partitioner = None
        if isinstance(sink, ConfiguredTransactionalSink):
            needed.append(sink.topic)
            partitioner = sink.partitioner
        stage = ExportStage(
            name,
            sink,
            settings,
            topics,
            budget,
            self._producer(f"sink.{name}", partitioner),
            revoke_budget=self._settings.export.revoke_budget,
            fail=self.fail,
        )
        channel = self._agent(f"sink.{name}", stage.run)
        source = self._source(
            name,
            f"sink.{name}",
            properties.sink_group(self._settings, name),
            topics.output,
            channel,
            stage,
            settings.start,
            lambda: budget.used,
        )
        source.when_full(stage.give_back)

        async def start() -> None:
            stage.decoder = output_decoder(self._settings, name)
            facts = await self._examine(name, *needed)
            await stage.open(facts, lambda: self._topic_id(topics.output))
            await self._app.add_runtime_dependency(source)

        async def drain(deadline: float) -> None:
            async with asyncio.timeout_at(deadline):
                await source.pause_all()
            await stage.drain(deadline)

        self._watch_stage(name, stage, source, settings.flush_interval)
        return Component(name, start, drain, stage.close)

    def _watch_stage(
        self, name: str, stage: EnrichStage | ExportStage, source: ChunkSource, cycle: float
    ) -> None:
        """``cycle``: seconds after which what was read is committed as a rule."""

        def problems() -> Iterator[Problem]:
            found = [*source.problems(), *stage.problems()]
            if name == "enrich" and self._flag_watch is not None:
                found += self._flag_watch.problems()
            yield from found or source.lagging()

        source.progress.cycle = cycle
        self._stages[name] = stage
        self.health.stopped[name] = lambda: stage.stopped
        self.health.joined[name] = lambda: source.joined
        self.health.checks[name] = problems

    def _measure(self) -> None:
        """Set the metrics that are measured only when somebody looks."""
        for name, source in self.sources.items():
            source.progress.show(self._stages[name].under_way())
        metrics.show(self.health, {name: source.positions for name, source in self.sources.items()})

    def _agent(self, name: str, body: Callable[[AsyncIterable[Chunk]], Awaitable[None]]) -> ChannelT[Chunk]:
        """Make a Faust agent of ``body``; returns the channel that feeds it. However the body ends, the
        process ends with it: Faust would start it again after the chunk.
        """
        channel: ChannelT[Chunk] = self._app.channel(maxsize=CHANNEL_CHUNKS)

        async def agent(chunks: AsyncIterable[Chunk]) -> None:
            try:
                await body(chunks)
            except asyncio.CancelledError:
                self.fail(TaskEnded(f"the agent {name} was cancelled"))
                raise
            except BaseException as error:
                self.fail(error)
                raise
            self.fail(TaskEnded(f"the agent {name} returned"))

        self._app.agent(channel, name=name)(agent)
        return channel

    def _producer(self, stage: str, partitioner: str | None = None) -> TransactionalProducer:
        identity = properties.transactional_id(self._settings, stage, self._instance)
        chosen = {"partitioner": partitioner} if partitioner else {}
        return TransactionalProducer(
            properties.producer_properties(self._settings, identity, self._share) | chosen,
            stable=bool(self._settings.kafka.instance),
        )

    def _source(
        self,
        name: str,
        stage_name: str,
        group: str,
        topic: str,
        channel: ChannelT[Chunk],
        stage: Stage,
        start: Start,
        beside: Callable[[], int] = lambda: 0,
    ) -> ChunkSource:
        settings = self._settings
        source = ChunkSource(
            name,
            properties=properties.consumer_properties(
                settings, group, properties.static_member(settings, stage_name), self._share
            ),
            topic=topic,
            channel=channel,
            stage=stage,
            start=start,
            session_timeout=settings.kafka.session_timeout,
            fail=self.fail,
            memory=self._share,
            beside=beside,
        )
        self.sources[name] = source
        self.health.threads[name] = lambda: source.last_active
        return source

    # ── starting ────────────────────────────────────────────────────────────

    async def _start(self, component: Component) -> None:
        self.health.starting[component.name] = Problem("starting", "starting")
        try:
            await component.start()
        except Exception as error:
            self.fail(error)
        else:
            self._started.append(component)
            self.health.starting.pop(component.name, None)
            log.info("stage_started", stage=component.name)

    async def _examine(self, component: str, *topics: str) -> TopicFacts:
        """Ask the brokers about the topics until they answer and have them."""
        if self._facts is not None:
            return self._facts
        admin = properties.admin_properties(self._settings)

        def ask() -> TopicFacts:
            return prepare_topics(admin, self._settings.topics, topics)

        facts = await self._patiently(component, ask, TopicsNotReady)
        await self._say_if_name_is_new(admin)
        return facts

    async def _say_if_name_is_new(self, admin: properties.Configuration) -> None:
        """Once a process: a mistyped name reads and exports everything again, and nothing else shows it."""
        if self._name_is_looked_at:
            return
        self._name_is_looked_at = True
        with suppress(NotTold):
            if found := await asyncio.to_thread(earlier_output, admin, self._settings):
                log.warning("name_is_new", name=self._settings.name, hint=found)

    def _topic_id(self, topic: str) -> str:
        if self._facts is not None:
            return self._facts.ids.get(topic, "")
        return self._topic_ids.now(topic)

    async def _watch_flags(self, transform: Transform) -> None:
        """Read the flags, waiting until they can be read, and keep them up to date from then on."""

        def use(flags: FlagSet) -> None:
            transform.flags = flags
            report_flags(flags)

        flag_watch = watch(self._settings.flags, use)
        self._flag_watch = flag_watch
        await self._patiently("enrich", flag_watch.begin, FlagFileError)
        self._tasks.start("flags", flag_watch.run(), lasts=True)

    async def _patiently(self, component: str, function: Callable[[], T], *passing: type[Exception]) -> T:
        """Call ``function`` in a thread until it succeeds; the process is unready meanwhile and says why."""
        backoff = Backoff(RETRY_SECONDS, LONGEST_RETRY_SECONDS)
        while True:
            try:
                return await asyncio.to_thread(function)
            except passing as error:
                problem = _awaited(error)
                if self.health.starting.get(component) != problem:
                    log.error("stage_waits", stage=component, reason=problem.text)
                self.health.starting[component] = problem
            await asyncio.sleep(backoff.next_pause())

    # ── running and stopping ────────────────────────────────────────────────────────────

    async def _watch(self) -> None:
        """Once a second: what only time shows, and a sign of life for the watchdog, itself watched here."""
        while True:
            await asyncio.sleep(1.0)
            self._beat = time.monotonic()
            self._lost_lines.look()
            if self._flag_watch is not None:
                self._flag_watch.look()
            if not self._watchdog.alive:
                raise TaskEnded("the watchdog's thread ended")
            for name, source in self.sources.items():
                source.log_if_idle_or_silent([problem.kind for problem in self.health.checks[name]()])
            for stage in self._stages.values():
                stage.look()

    def _moved(self) -> dict[str, float]:
        return {"event loop": self._beat} | {name: moved() for name, moved in self.health.threads.items()}

    def _on_stuck(self, names: list[str]) -> None:
        """No call waits without bound: what hangs ends the process, and the offsets do the rest."""
        log.critical("worker_stuck", threads=names, exit_code=int(ExitCode.STUCK))
        end_process(ExitCode.STUCK)

    def _on_dead_threads(self, names: list[str]) -> None:
        error = TaskEnded(f"threads ended: {', '.join(names)}")
        self._loop.call_soon_threadsafe(self.fail, error)

    def _on_faust_task(self, task: asyncio.Task[Any]) -> None:
        self.fail(TaskEnded(f"a task of Faust ended: {task.get_name()}"))

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An error that nothing awaits. One of a callback, such as a timer, is work that did not happen."""
        error = context.get("exception")
        if "handle" in context and isinstance(error, Exception):
            self.fail(error)
        else:
            self._ignored.tell(str(context.get("message", "")), error)

    async def _follow_ends(self) -> None:
        """Keep the lag up to date, also of partitions that are paused: librdkafka asks about no others."""
        while True:
            progresses = [source.progress for source in self.sources.values()]
            found = await asyncio.to_thread(self._ends.ask, set(partitions_of(progresses)))
            for progress in progresses:
                progress.measured(found)
            await asyncio.sleep(ENDS_SECONDS)

    def _on_signal(self, number: int) -> None:
        if self._stop.is_set():
            end_process(128 + number)  # asked twice: now
        self.stop()
        log.info("worker_stopping", signal=signal.Signals(number).name)

    def _look_now(self) -> None:
        """A person has mended something: try at once what waits to be tried again."""
        for stage in self._stages.values():
            stage.look_now()
        log.info("looking_again")

    async def _shut_down(self) -> None:
        budget = self._settings.shutdown.budget
        killer = threading.Timer(budget + GRACE_SECONDS, end_process, [self._code or ExitCode.STUCK])
        killer.daemon = True
        killer.start()
        self._watchdog.stop()
        self._tasks.cancel()
        deadline = asyncio.get_running_loop().time() + budget
        outcomes = await asyncio.gather(
            *(component.drain(deadline) for component in self._started), return_exceptions=True
        )
        for component, outcome in zip(self._started, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                log.warning("not_drained", stage=component.name, error=repr(outcome))
        await self._app.stop()
        await asyncio.gather(*(component.close() for component in self._started), return_exceptions=True)
        killer.cancel()

    # ── pages ────────────────────────────────────────────────────────────

    def _build_app(self) -> App:
        web = self._settings.web
        app = App(
            self._settings.name,
            broker="kafka://",
            autodiscover=False,
            topic_disable_leader=True,
            web_enabled=web.enabled,
            web_bind=(addresses := addresses_of(web.host)),
            web_port=web.port or _free_port(addresses),
            web_router_enabled=False,
            web_tables_enabled=False,
        )

        add_pages(app, self.health, self._sinks, self._measure)
        return app


def _of_faust(task: asyncio.Task[Any]) -> bool:
    frame = getattr(task.get_coro(), "cr_frame", None)
    return frame is not None and frame.f_globals["__name__"].partition(".")[0] in ("faust", "mode")


def _awaited(error: Exception) -> Problem:
    """What a stage waits for that is starting."""
    match error:
        case TopicsNotReady():
            return Problem(error.kind, str(error))
        case RegistryError():
            return Problem("registry", str(error))
        case _:
            return Problem("flags", str(error))


def addresses_of(host: str) -> list[str]:
    """What ``web.host`` says to listen on. ``*`` is every family that this host can bind: a kernel without
    IPv6 refuses ``::``, and its absence must not keep the pages from the other family.
    """
    if host != "*":
        return [host]
    return [address for address in ("0.0.0.0", "::") if _can_bind(address)] or ["0.0.0.0"]


def _can_bind(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _free_port(addresses: Sequence[str]) -> int:
    """One that is free at the first address; the others almost always have it free, too."""
    family, _, _, _, place = socket.getaddrinfo(
        addresses[0], 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family) as probe:
        probe.bind(place)
        return int(probe.getsockname()[1])
