"""The demo's course: applications send, the worker works, the view shows; then all end in order."""

import asyncio
import os
import signal
import time

from flagstream.config.settings import Settings
from flagstream.demo.ledger import Ledger
from flagstream.demo.samples import Fate, Sample, Samples
from flagstream.demo.view import View
from flagstream.demo.watch import Watch
from flagstream.errors import ExitCode
from flagstream.host import Host
from flagstream.kafka.embedded import EmbeddedBroker
from flagstream.kafka.topics import TopicFacts

SINK = "archive"
RATE = 400
"""Events a second. Some 25 KB a second and partition: the broker, which keeps 5 MiB of each, holds three
minutes.
"""
TICK_SECONDS = 0.05
LOOK_SECONDS = 0.25
FLUSH_SECONDS = 3.0
"""A window's life: short, so that a demo of some seconds has files to show and ends soon after Ctrl-C."""
SETTLE_SECONDS = FLUSH_SECONDS + 7.0
"""At the end, how long the last events may take to be exported."""


class Session:
    """One run of the demo, on the event loop that the worker runs on as well."""

    def __init__(
        self,
        settings: Settings,
        broker: EmbeddedBroker,
        samples: Samples,
        ledger: Ledger,
        watch: Watch,
        view: View,
    ) -> None:
        self.stall = 0.0
        """Longest time in seconds in which the process did not run: suspended, or starved."""
        self._ingest = settings.topics.ingest
        self._broker = broker
        self._samples = samples
        self._ledger = ledger
        self._watch = watch
        self._view = view
        self._asked = asyncio.Event()
        # The broker cannot answer questions about its topics, so the worker must not ask.
        self._host = Host(settings, enrich=True, sinks=(SINK,), facts=TopicFacts())

    async def run(self, seconds: float | None) -> ExitCode:
        """Run for ``seconds``, or until a signal or an error of the worker; return the worker's exit code."""
        working = asyncio.create_task(self._host.run())
        await asyncio.sleep(0)  # the worker installs its signal handlers first, and ours replace them
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)
        # A terminal that is closed ends a demo; a worker would look again at what has stopped.
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
        feeding = asyncio.create_task(self._feed())
        showing = asyncio.create_task(self._show())
        asking = asyncio.create_task(self._asked.wait())
        try:
            await asyncio.wait(
                [working, feeding, showing, asking], timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            feeding.cancel()
            await asyncio.to_thread(self._broker.flush)
            self._view.stopping()
            await self._settle(working)
        finally:
            self._host.stop()
            code = await working
            for task in (feeding, showing, asking):
                task.cancel()
            outcomes = await asyncio.gather(feeding, showing, asking, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        self._view.show(self._watch.look(), last=True)
        return code

    def _on_signal(self, number: int) -> None:
        if self._asked.is_set():  # asked twice: now
            self._view.close()
            os._exit(128 + number)
        self._asked.set()

    async def _feed(self) -> None:
        """Send ``RATE`` events a second. Time lost, as in a stopped process, is not made up for."""
        due = time.monotonic()
        while True:
            for _ in range(round(RATE * TICK_SECONDS)):
                self._send()
            self._broker.poll()
            self.stall = max(self.stall, time.monotonic() - due)
            due = max(due + TICK_SECONDS, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    def _send(self) -> None:
        sequence = self._ledger.next
        sample: Sample = self._samples.make(sequence, time.time())

        def sent(success: bool) -> None:
            if success:
                self._ledger.settle(sequence, sample.fate)

        self._ledger.enter(sample)
        self._broker.send(self._ingest, sample.key, sample.value, sent)

    async def _show(self) -> None:
        while True:
            self._view.show(self._watch.look())
            await asyncio.sleep(LOOK_SECONDS)

    async def _settle(self, working: asyncio.Task[ExitCode]) -> None:
        """Wait until what was sent is where it has to be."""
        give_up = time.monotonic() + SETTLE_SECONDS
        while not working.done() and time.monotonic() < give_up:
            totals = self._watch.sight.totals
            processed = totals["enriched"] + totals["dropped"] + totals["dead"]
            if processed >= self._ledger.sent and totals["exported"] >= self._ledger.count(Fate.EXPORT):
                return
            await asyncio.sleep(LOOK_SECONDS)
