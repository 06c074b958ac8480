"""Keeps the flags of all sources up to date while the worker runs."""

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import islice

import structlog

from flagstream.flag_sources import FlagSource
from flagstream.flag_sources.cache import FlagCache
from flagstream.flag_sources.document import Document
from flagstream.flag_sources.merging import contradictions, merged
from flagstream.flag_sources.unanswered import HANGS_SECONDS, Unanswered
from flagstream.flags import FlagFileError, FlagSet
from flagstream.operate import metrics
from flagstream.operate.health import Problem

log = structlog.get_logger(__name__)

JITTER = 0.1
"""A poll comes early or late by up to this share of the interval, so that a fleet that started together does
not poll together. The figure is GO Feature Flag's.
"""


LONGEST_NAME = 200
"""Characters of a flag's name in the log."""
MOST_NAMED = 20
"""Flags that one line of the log names."""

STAY = "older flags stay in use: mend the source, it is looked at again"

WAITS = "the start waits for it: mend the source"

EXPORTED = "exported unless they say trackEvents: false"
"""What happens to the events of flags that cannot be read, for people."""


def report_flags(flags: FlagSet) -> None:
    """Log and count a set of flags that is now in use. The caller runs it after each change."""
    metrics.FLAGS.set(len(flags))
    metrics.INVALID_FLAGS.set(len(flags.invalid))
    log.info("flags_loaded", flags=len(flags))
    if flags.invalid:
        log.warning(
            "flags_invalid",
            invalid={name[:LONGEST_NAME]: why for name, why in islice(flags.invalid.items(), MOST_NAMED)},
            count=len(flags.invalid),
            hint=f"what cannot be read of them is passed over; events of invalid ones are {EXPORTED}",
        )


class FlagWatch:
    """All sources, in the order in which they are merged: the later one wins.

    The caller first calls `begin`, in a thread, until it succeeds, and then `run`. Both call ``use`` with
    each new set of flags, `begin` in its thread, `run` on the event loop. If ``use`` raises, the flags before
    stay in use. ``chance`` gives numbers in [0, 1), ``clock`` monotonic seconds.
    """

    def __init__(
        self,
        sources: Sequence[FlagSource],
        interval: float,
        use: Callable[[FlagSet], None],
        cache: FlagCache | None = None,
        *,
        chance: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._unanswered = Unanswered(clock)
        self._begun = False
        self._sources = sources
        self._interval = interval
        self._use = use
        self._cache = cache
        self._chance = chance
        self._sleep = sleep
        self._flags: dict[str, FlagSet] = {}
        self._unusable: set[str] = set()
        self._failing: dict[str, str] = {}
        self._told: set[str] = set()
        self._contradictions: dict[str, str] = {}
        self._writing = threading.Lock()
        for source in sources:
            metrics.FLAG_SOURCE_FAILING.labels(source.name).set(0)

    def begin(self) -> None:
        """Load the flags and put them into use. Raises FlagFileError; the caller then calls it again. It
        reads all sources again if their flags could not be used.
        """
        flags = self.load()
        try:
            self._use(flags)
        except Exception as error:
            self._flags.clear()
            raise FlagFileError(
                f"flags: cannot be taken into use: {type(error).__name__}: {error}"
            ) from error
        self._begun = True

    def problems(self) -> Iterator[Problem]:
        """Return what is wrong with the sources now, for the health page. It is called on the event loop.
        Before flags are in use, only sources without an answer count: :meth:`begin` raises for all other
        failures.
        """
        hanging = self._unanswered.hanging()
        for name, seconds in hanging.items():
            yield Problem("flags", f"{name}: no answer for {seconds:.0f} s; {self._hint}")
        for name, text in self._failing.items():
            if self._begun and name not in hanging:
                yield Problem("flags", f"{text}; {STAY}")

    def look(self) -> None:
        """Log once which source does not answer. It is called every second or so, on the event loop."""
        for name in sorted(self._unanswered.newly_hanging()):
            metrics.FLAG_ERRORS.inc()
            metrics.FLAG_SOURCE_FAILING.labels(name).set(1)
            error = f"{name}: no answer for {HANGS_SECONDS:g} s"
            log.error("flags_unreadable", source=name, error=error, hint=self._hint)

    @property
    def _hint(self) -> str:
        return STAY if self._begun else WAITS

    def load(self) -> FlagSet:
        """Return the flags of all sources. For a source that cannot be read now, the cache's flags are used.
        A source that an earlier call has read is not read again.

        Raises FlagFileError with the problems of all sources that cannot be read and are not in the cache.
        """
        missing = [problem for source in self._sources if (problem := self._first(source)) is not None]
        if missing:
            raise FlagFileError("; ".join(missing))
        self._write()
        return self._merged()

    def _first(self, source: FlagSource) -> str | None:
        if source.name in self._flags:
            return None
        try:
            self._flags[source.name] = self._unanswered.ask(source.name, source.load)
        except Exception as error:  # whatever a client library raises: the start waits, or uses the cache
            metrics.FLAG_SOURCE_FAILING.labels(source.name).set(1)
            self._failing[source.name] = words(error)
            return None if self._restored(source, error) else f"flags: {words(error)}"
        metrics.FLAG_SOURCE_FAILING.labels(source.name).set(0)
        self._failing.pop(source.name, None)
        return None

    def _restored(self, source: FlagSource, problem: Exception) -> bool:
        try:
            document = self._cached().get(source.name)
            if document is None:
                return False
            self._flags[source.name] = source.restore(document)
        except FlagFileError as error:
            if str(error) not in self._told:  # the start is tried until each source is there
                log.error("flags_cache_unusable", error=str(error))
            self._told.add(str(error))
            return False
        log.error(
            "flags_from_cache",
            source=source.name,
            error=words(problem),
            hint="the source did not answer at the start: flags of an earlier run are in use until it does",
        )
        return True

    def _cached(self) -> dict[str, Document]:
        if self._cache is None:
            return {}
        try:
            return self._cache.read()
        except (OSError, ValueError) as error:
            raise FlagFileError(f"{self._cache.path}: {getattr(error, 'strerror', None) or error}") from error

    async def run(self) -> None:
        """Poll each source by itself, for ever. If one poll ends, in whatever way, all end."""
        await asyncio.gather(*(self._poll(source) for source in self._sources))

    async def _poll(self, source: FlagSource) -> None:
        failing = metrics.FLAG_SOURCE_FAILING.labels(source.name)
        while True:
            await self._sleep(self._interval * (1 + JITTER * (2 * self._chance() - 1)))
            try:
                flags = await asyncio.to_thread(self._unanswered.ask, source.name, source.poll)
            except Exception as error:  # unforeseen errors too: the other sources go on, and so does this one
                metrics.FLAG_ERRORS.inc()
                failing.set(1)
                if self._failing.get(source.name) != words(error):
                    log.error(
                        "flags_unreadable",
                        source=source.name,
                        error=words(error),
                        hint=STAY,
                        exc_info=None if isinstance(error, OSError | FlagFileError) else error,
                    )
                self._failing[source.name] = words(error)
                continue
            if source.problem is None and source.name not in self._unusable:
                self._failing.pop(source.name, None)
            if flags is not None:
                self._take(source, flags)
            failing.set(source.name in self._failing)
            if flags is not None and not self._unusable:
                await asyncio.to_thread(self._write)

    def _take(self, source: FlagSource, flags: FlagSet) -> None:
        """Put the source's new flags into use, or change nothing."""
        former = self._flags[source.name]
        self._flags[source.name] = flags
        try:
            self._use(self._merged())
        except Exception as error:  # something unforeseen in a flag file must not end the worker
            self._flags[source.name] = former
            self._unusable.add(source.name)
            self._failing[source.name] = f"{source.name}: cannot be taken into use: {words(error)}"
            metrics.FLAG_ERRORS.inc()
            log.error(
                "flags_not_used",
                source=source.name,
                error=f"{type(error).__name__}: {error}",
                hint=STAY,
                exc_info=error,
            )
        else:
            self._unusable.discard(source.name)
            if source.problem is None:
                self._failing.pop(source.name, None)

    def _merged(self) -> FlagSet:
        flags = {source.name: self._flags[source.name] for source in self._sources}
        found = contradictions(flags)
        if found and found != self._contradictions:
            log.warning(
                "flag_sources_contradict",
                flags=dict(sorted(found.items())[:MOST_NAMED]),
                count=len(found),
                hint="sources differ in trackEvents of a flag; the last one counts for all events. If they "
                "are flag sets or environments of their own, run one worker for each",
            )
        self._contradictions = found
        return merged(flags.values())

    def _write(self) -> None:
        if self._cache is None:
            return
        with self._writing:
            documents = {source.name: source.good for source in self._sources}
            try:
                self._cache.write({name: document for name, document in documents.items() if document})
            except (OSError, ValueError) as error:
                log.error("flags_not_cached", error=str(error))


def words(error: Exception) -> str:
    """Return the error in our words. Of an unforeseen one only the type, because a client library may quote a
    secret.
    """
    return str(error) if isinstance(error, OSError | FlagFileError) else f"unexpected {type(error).__name__}"
