"""The process: it starts the stages that it runs, watches them, and ends them in order.

It ends at SIGTERM or SIGINT, or because of an error that nothing in it can mend; each has an exit code of its
own (:class:`flagstream.errors.ExitCode`).
"""

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from confluent_kafka import libversion

from flagstream import __version__, crashpoints
from flagstream.config import mask_of
from flagstream.config.settings import Settings
from flagstream.errors import ConfigError, ExitCode, Fatal
from flagstream.faust_app import build_app, tasks_of_faust
from flagstream.kafka import properties
from flagstream.kafka.ends import TopicEnds
from flagstream.kafka.progress import partitions_of
from flagstream.kafka.source import ChunkSource
from flagstream.kafka.topics import TopicFacts
from flagstream.memory import MemoryShare
from flagstream.operate import metrics
from flagstream.operate.health import ALIVE_SECONDS, PROCESS, Health, Problem
from flagstream.operate.ignored_errors import IgnoredErrors
from flagstream.operate.logging import configure, end_process, lines_lost
from flagstream.operate.lost_lines import LostLines
from flagstream.operate.pages import add as add_pages
from flagstream.operate.tasks import TaskEnded, Tasks
from flagstream.operate.watchdog import Watchdog
from flagstream.prerequisites import Prerequisites
from flagstream.stages import Process, RunningStage, build_stages

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
"""Between two looks at everything that only the passing of time shows."""
ENDS_SECONDS = 3.0
"""Between two questions where partitions end, of which the lag is computed."""
GRACE_SECONDS = 15.0
"""For leaving the groups after the shutdown budget is used up; then the process ends itself."""


def run(settings: Settings, *, enrich: bool, sinks: Sequence[str]) -> None:
    """Run the worker until SIGTERM, SIGINT or an error that it cannot mend; ends the process with its exit
    code.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the host handles it
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


class Host:
    """Runs one process. With ``facts`` the brokers are not asked about the topics: the built-in broker of the
    demo cannot answer.
    """

    def __init__(
        self, settings: Settings, *, enrich: bool, sinks: Sequence[str], facts: TopicFacts | None = None
    ) -> None:
        self._settings = settings
        self._stop = asyncio.Event()
        self._code = ExitCode.OK
        self._lost_lines = LostLines(lines_lost)
        self._ignored = IgnoredErrors()
        self._ends = TopicEnds(properties.admin_properties(settings))
        self._beat = 0.0
        """Changes every second while the event loop runs."""
        self._tasks = Tasks(self.fail)
        self.health = Health(
            checks={PROCESS: self._lost_lines.problems},
            stopping=self._stop.is_set,
            dead=lambda: self._tasks.dead,
            mask=mask_of(settings).whole,
        )
        metrics.begin(__version__, libversion()[0], enrich=enrich, sinks=sinks)
        self._app = build_app(settings.name, settings.web)
        add_pages(self._app, self.health, tuple(sinks), self._measure)
        process = Process(
            settings,
            self._app,
            self.health,
            self._tasks,
            Prerequisites(settings, self.health, facts),
            self.fail,
            MemoryShare(settings.export.memory_budget // max(1, int(enrich) + len(sinks))),
            properties.process_instance(settings),
        )
        self._stages = build_stages(process, enrich=enrich, sinks=sinks)
        self._started: list[RunningStage] = []

    @property
    def sources(self) -> Mapping[str, ChunkSource]:
        """Return the source of each stage by the stage's name."""
        return {stage.name: stage.source for stage in self._stages}

    async def run(self) -> ExitCode:
        """Start, work until :meth:`stop` or an error, drain, leave the groups; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._look_now)
        loop.set_exception_handler(self._on_loop_error)

        def on_dead_threads(names: list[str]) -> None:
            loop.call_soon_threadsafe(self.fail, TaskEnded(f"threads ended: {', '.join(names)}"))

        watchdog = Watchdog(
            self._moved, limit=int(ALIVE_SECONDS), stuck=_end_stuck_process, dead=on_dead_threads
        )
        log.info("worker_starting", version=__version__, stages=[stage.name for stage in self._stages])
        await self._start_app()
        for stage in self._stages:
            self._tasks.start(f"start {stage.name}", self._start(stage))
        self._tasks.start("watch", self._watch(watchdog), lasts=True)
        self._tasks.start("follow ends", self._follow_ends(), lasts=True)
        watchdog.start()
        # What is alive by now stays. Records and their values come and go without cycles, but would set off
        # a collection every few chunks, and looking through all of Faust each time cost a fifth of the CPU.
        gc.freeze()
        gc.set_threshold(100_000, 20, 100)
        await self._stop.wait()
        watchdog.stop()
        await self._shut_down()
        log.info("worker_stopped", exit_code=int(self._code))
        return self._code

    def stop(self) -> None:
        """Deliver what fits the budget and end :meth:`run`."""
        self._stop.set()

    def fail(self, error: BaseException) -> None:
        """Stop everything in order after an error that this process cannot mend, with its exit code."""
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

    # ── starting ────────────────────────────────────────────────────────────

    async def _start_app(self) -> None:
        self._app.finalize()
        self._app.flow_control.resume()
        try:
            await self._app.start()
        except OSError as error:
            where = f"{self._settings.web.host}:{self._settings.web.port}"
            self.fail(Fatal(ExitCode.CONFIG, f"web.host and web.port ({where}): {error}"))
        for task in tasks_of_faust():
            task.add_done_callback(self._on_faust_task)

    async def _start(self, stage: RunningStage) -> None:
        self.health.starting[stage.name] = Problem("starting", "starting")
        try:
            await stage.start()
        except Exception as error:
            self.fail(error)
        else:
            self._started.append(stage)
            self.health.starting.pop(stage.name, None)
            log.info("stage_started", stage=stage.name)

    # ── watching ────────────────────────────────────────────────────────────

    async def _watch(self, watchdog: Watchdog) -> None:
        """Look at what only time shows, and give the watchdog, which is watched here, a sign of life."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._beat = time.monotonic()
            self._lost_lines.look()
            if not watchdog.alive:
                raise TaskEnded("the watchdog's thread ended")
            for stage in self._stages:
                stage.look()

    async def _follow_ends(self) -> None:
        """Keep the lag up to date, also of partitions that are paused: librdkafka asks about no others."""
        while True:
            progresses = [source.progress for source in self.sources.values()]
            found = await asyncio.to_thread(self._ends.ask, set(partitions_of(progresses)))
            for progress in progresses:
                progress.measured(found)
            await asyncio.sleep(ENDS_SECONDS)

    def _measure(self) -> None:
        """Set the metrics that are measured only when somebody asks for them."""
        for stage in self._stages:
            stage.measure()
        metrics.show(self.health, {name: source.positions for name, source in self.sources.items()})

    def _moved(self) -> dict[str, float]:
        return {"event loop": self._beat} | {name: moved() for name, moved in self.health.threads.items()}

    def _on_faust_task(self, task: asyncio.Task[Any]) -> None:
        self.fail(TaskEnded(f"a task of Faust ended: {task.get_name()}"))

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Take an error that nothing awaits. One of a callback, such as a timer, is work that did not
        happen.
        """
        error = context.get("exception")
        if "handle" in context and isinstance(error, Exception):
            self.fail(error)
        else:
            self._ignored.report(str(context.get("message", "")), error)

    # ── stopping ────────────────────────────────────────────────────────────

    def _on_signal(self, number: int) -> None:
        if self._stop.is_set():
            end_process(128 + number)  # asked twice: now
        self.stop()
        log.info("worker_stopping", signal=signal.Signals(number).name)

    def _look_now(self) -> None:
        """Try at once what waits to be tried again: a person has mended something (SIGHUP)."""
        for stage in self._stages:
            stage.look_now()
        log.info("looking_again")

    async def _shut_down(self) -> None:
        budget = self._settings.shutdown.budget
        killer = threading.Timer(budget + GRACE_SECONDS, end_process, [self._code or ExitCode.STUCK])
        killer.daemon = True
        killer.start()
        self._tasks.cancel()
        deadline = asyncio.get_running_loop().time() + budget
        outcomes = await asyncio.gather(
            *(stage.drain(deadline) for stage in self._started), return_exceptions=True
        )
        for stage, outcome in zip(self._started, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                log.warning("not_drained", stage=stage.name, error=repr(outcome))
        await self._app.stop()
        await asyncio.gather(*(stage.close() for stage in self._started), return_exceptions=True)
        killer.cancel()


def _end_stuck_process(names: list[str]) -> None:
    """End the process, whose threads ``names`` hang in calls without a bound; the offsets do the rest."""
    log.critical("worker_stuck", threads=names, exit_code=int(ExitCode.STUCK))
    end_process(ExitCode.STUCK)
