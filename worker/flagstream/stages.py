"""Builds the stages of a process: the enrich stage, and one export stage for each sink.

Each is an agent on a channel of chunks that a :class:`flagstream.kafka.source.ChunkSource` fills. The host
starts, watches, drains and closes them all alike, as :class:`RunningStage`.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from flagstream.config.settings import Settings
from flagstream.enrich.stage import EnrichStage
from flagstream.enrich.transform import Transform
from flagstream.export.budget import MemoryBudget
from flagstream.export.stage import ExportStage
from flagstream.faust_app import App, add_agent
from flagstream.flag_sources.opening import watch
from flagstream.flag_sources.watching import FlagWatch, report_flags
from flagstream.flags import FlagFileError, FlagSet
from flagstream.kafka import properties
from flagstream.kafka.source import ChunkSource
from flagstream.kafka.transactions import TransactionalProducer
from flagstream.memory import MemoryShare
from flagstream.operate.health import Health, Problem
from flagstream.operate.tasks import Tasks
from flagstream.prerequisites import Prerequisites
from flagstream.sinks.protocol import ConfiguredTransactionalSink
from flagstream.sinks.registry import build
from flagstream.topic_formats.building import ingest_decoder, output_decoder, output_encoder
from flagstream.topic_formats.registry import RegistryError
from flagstream.units import Start

ENRICH = "enrich"
"""The name of the enrich stage; the others have the names of their sinks."""


@dataclass(frozen=True, slots=True)
class Process:
    """What all stages of a process have in common."""

    settings: Settings
    app: App
    health: Health
    tasks: Tasks
    prerequisites: Prerequisites
    fail: Callable[[BaseException], None]
    """Called with an error that ends the process."""
    memory: MemoryShare
    """What each stage may hold. The shares are equal, so that a dead sink stalls no other stage."""
    instance: str
    """What the transactional ids of this process have in common."""

    def producer(self, stage: str, partitioner: str | None = None) -> TransactionalProducer:
        """Return a producer for ``stage`` ("enrich" or "sink.NAME"); it is not connected yet."""
        identity = properties.transactional_id(self.settings, stage, self.instance)
        chosen = {"partitioner": partitioner} if partitioner else {}
        return TransactionalProducer(
            properties.producer_properties(self.settings, identity, self.memory) | chosen,
            stable=bool(self.settings.kafka.instance),
        )

    def source(
        self,
        name: str,
        agent: str,
        stage: EnrichStage | ExportStage,
        *,
        group: str,
        topic: str,
        start: Start,
        beside: Callable[[], int] = lambda: 0,
    ) -> ChunkSource:
        """Return the source of chunks for ``stage``, whose body becomes the agent ``agent``."""
        member = properties.static_member(self.settings, agent)
        return ChunkSource(
            name,
            properties=properties.consumer_properties(self.settings, group, member, self.memory),
            topic=topic,
            channel=add_agent(self.app, agent, stage.run, self.fail),
            stage=stage,
            start=start,
            session_timeout=self.settings.kafka.session_timeout,
            fail=self.fail,
            memory=self.memory,
            beside=beside,
        )


class RunningStage(ABC):
    """One stage of the process as the host sees it. All methods are called on the event loop.

    ``cycle``: seconds after which what was read is usually committed.
    """

    def __init__(
        self, name: str, stage: EnrichStage | ExportStage, source: ChunkSource, cycle: float, health: Health
    ) -> None:
        self.name = name
        self.source = source
        self._stage = stage
        source.progress.cycle = cycle
        health.threads[name] = lambda: source.last_active
        health.stopped[name] = lambda: stage.stopped
        health.joined[name] = lambda: source.joined
        health.checks[name] = self.problems

    @abstractmethod
    async def start(self) -> None:
        """Wait for what the stage needs, and join its group. Raises what no waiting mends."""

    @abstractmethod
    async def drain(self, deadline: float) -> None:
        """Finish what is under way until ``deadline`` (of the loop's clock). Raises TimeoutError after it."""

    async def close(self) -> None:
        """Release what the stage holds. The consumer has left its group."""
        await self._stage.close()

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong now. That more comes in than goes out is a problem where there is no other."""
        yield from [*self.source.problems(), *self._stage.problems()] or self.source.lagging()

    def look(self) -> None:
        """Called once a second: report and begin again what only the passing of time shows to be due."""
        self.source.log_if_idle_or_silent([problem.kind for problem in self.problems()])
        self._stage.look()

    def look_now(self) -> None:
        """Try at once what waits to be tried again: a person has mended something."""
        self._stage.look_now()

    def measure(self) -> None:
        """Set the metrics that are measured only when somebody asks for them."""
        self.source.progress.show(self._stage.under_way())


class RunningEnrich(RunningStage):
    """The enrich stage, with the watch over the flags that it applies."""

    def __init__(self, process: Process) -> None:
        settings, topics = process.settings, process.settings.topics
        self._process = process
        self._transform = Transform(FlagSet({}), settings.enrich.default_source, settings.enrich.metadata)
        self._flags: FlagWatch | None = None
        self._enrich = EnrichStage(
            settings.enrich,
            topics,
            self._transform,
            process.producer(ENRICH),
            process.fail,
            process.memory.pipeline,
        )
        source = process.source(
            ENRICH,
            ENRICH,
            self._enrich,
            group=properties.enrich_group(settings),
            topic=topics.ingest,
            start=settings.enrich.start,
        )
        super().__init__(ENRICH, self._enrich, source, settings.enrich.commit_interval, process.health)

    async def start(self) -> None:
        settings, topics = self._process.settings, self._process.settings.topics
        prerequisites, enricher = self._process.prerequisites, self._enrich.enricher
        await self._watch_flags()
        enricher.decoder, enricher.encoder = ingest_decoder(settings), output_encoder(settings)
        if enricher.encoder is not None:
            await prerequisites.wait_for(self.name, enricher.encoder.open, RegistryError)
        facts = await prerequisites.topics(self.name, topics.ingest, topics.output, topics.dead_letters)
        await self._enrich.open(
            facts.limit(topics.output, topics.dead_letters),
            lambda: not self._process.health.stopping(),
            lambda: prerequisites.topic_id(topics.ingest),
        )
        await self._process.app.add_runtime_dependency(self.source)

    async def drain(self, deadline: float) -> None:
        async with asyncio.timeout_at(deadline):
            await self.source.pause_all()
            await self._enrich.flush()

    def problems(self) -> Iterator[Problem]:
        flags = self._flags.problems() if self._flags is not None else ()
        yield from [*self.source.problems(), *self._enrich.problems(), *flags] or self.source.lagging()

    def look(self) -> None:
        if self._flags is not None:
            self._flags.look()
        super().look()

    async def _watch_flags(self) -> None:
        """Wait until the flags can be read, and keep them up to date from then on."""

        def use(flags: FlagSet) -> None:
            self._transform.flags = flags
            report_flags(flags)

        self._flags = watch(self._process.settings.flags, use)
        await self._process.prerequisites.wait_for(self.name, self._flags.begin, FlagFileError)
        self._process.tasks.start("flags", self._flags.run(), lasts=True)


class RunningExport(RunningStage):
    """Runs the export stage of the sink ``name``."""

    def __init__(self, process: Process, name: str) -> None:
        settings, topics = process.settings.sinks[name], process.settings.topics
        sink = build(settings)
        budget = MemoryBudget(process.memory.total)
        self._process = process
        self._topics = [topics.output, topics.dead_letters]
        partitioner = None
        if isinstance(sink, ConfiguredTransactionalSink):
            self._topics.append(sink.topic)
            partitioner = sink.partitioner
        self._export = ExportStage(
            name,
            sink,
            settings,
            topics,
            budget,
            process.producer(f"sink.{name}", partitioner),
            revoke_budget=process.settings.export.revoke_budget,
            fail=process.fail,
        )
        source = process.source(
            name,
            f"sink.{name}",
            self._export,
            group=properties.sink_group(process.settings, name),
            topic=topics.output,
            start=settings.start,
            beside=lambda: budget.used,
        )
        source.when_full(self._export.give_back)
        super().__init__(name, self._export, source, settings.flush_interval, process.health)

    async def start(self) -> None:
        settings, prerequisites = self._process.settings, self._process.prerequisites
        self._export.decoder = output_decoder(settings, self.name)
        facts = await prerequisites.topics(self.name, *self._topics)
        await self._export.open(facts, lambda: prerequisites.topic_id(settings.topics.output))
        await self._process.app.add_runtime_dependency(self.source)

    async def drain(self, deadline: float) -> None:
        async with asyncio.timeout_at(deadline):
            await self.source.pause_all()
        await self._export.drain(deadline)


def build_stages(process: Process, *, enrich: bool, sinks: Sequence[str]) -> list[RunningStage]:
    """Return the stages that the process runs; none of them has begun to work."""
    stages: list[RunningStage] = [RunningEnrich(process)] if enrich else []
    return stages + [RunningExport(process, name) for name in sinks]
