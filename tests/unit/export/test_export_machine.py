"""Partitions of one sink, driven by any order of events: nothing is lost, doubled or committed too early.

The world (:mod:`tests.support.export_world`) checks each step as it happens; this machine chooses the steps.
"""

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from flagstream import crashpoints
from flagstream.chunk import Chunk, Partition
from flagstream.errors import OwnershipLost, SinkRefused, SinkUnavailable, TransactionAborted
from tests.support.export_world import Killed, Process, World
from tests.support.recording import StoredRecord, event
from tests.support.virtual_time import VirtualTimeLoop, settled

PARTITIONS = (Partition("evaluations", 0), Partition("evaluations", 1))
POINTS = sorted(point for point in crashpoints.POINTS if point.startswith("export."))
partitions = st.sampled_from(PARTITIONS)
kinds = st.lists(st.sampled_from(["event", "event", "event", "bad", "gap"]), min_size=1, max_size=12)


class ExportMachine(RuleBasedStateMachine):
    """One or more workers export two partitions to one create-only sink."""

    @initialize(
        continues=st.booleans(),
        dead_letters=st.booleans(),
        max_events=st.sampled_from([1, 3, 6, 40]),
        windows=st.integers(1, 4),
        tight=st.booleans(),
    )
    def begin(self, continues: bool, dead_letters: bool, max_events: int, windows: int, tight: bool) -> None:
        self.loop = VirtualTimeLoop()
        self.world = World(PARTITIONS, continues)
        self.overtaken = False
        self.made: list[Process] = []
        self.tight = windows * 41 * 1024
        self.settings = {
            "max_events": max_events,
            "flush_interval": 5.0,
            "on_missing_records": "continue" if continues else "stop",
            "on_refused": "dead_letter" if dead_letters else "retry",
        }
        crashpoints._armed.clear()
        crashpoints._passed.clear()
        self.patched = pytest.MonkeyPatch()
        self.patched.setattr(crashpoints, "signal", SimpleNamespace(pthread_kill=self._die))
        self._new_process()
        self.memory(tight)
        self._run(self.process.assign(*PARTITIONS))

    # ── steps ─────────────────────────────────────────────────────────────────────────────────────────────

    @rule(partition=partitions, kinds=kinds)
    def produce(self, partition: Partition, kinds: list[str]) -> None:
        for kind in kinds:
            self.world.logs[partition].append(kind)

    @rule(partition=partitions, count=st.integers(1, 15))
    def fetch(self, partition: Partition, count: int) -> None:
        """The next chunk, of any size, reaches the stage."""
        if partition in self.process.held() and partition not in self.process.paused:
            self.process.fetch(partition, count)
        self._run()

    @rule(partition=partitions, skip=st.integers(1, 3))
    def lose_a_chunk(self, partition: Partition, skip: int) -> None:
        """A chunk that does not join onto the one before it."""
        if partition in self.process.held() and partition not in self.process.paused:
            self.process.fetch(partition, 5, skip=skip)
        self._run()

    @rule(partition=partitions)
    def late_chunk(self, partition: Partition) -> None:
        """A chunk of an epoch that has ended."""
        at = self.world.committed.get(partition, (0, ""))[0]
        self.process.inject(Chunk(partition, 0, at, at + 1, [StoredRecord(at, event(at + 1_000))]))
        self._run()

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self._run(asyncio.sleep(seconds))

    @rule(partition=partitions)
    def revoke(self, partition: Partition) -> None:
        """The group takes the partition away, waits for the stage, and gives it back."""
        if partition in self.process.held():
            self._run(self.process.stage.revoked([partition]))
            self.process.release(partition)
            self._run(self.process.assign(partition))

    @rule(partition=partitions)
    def lose(self, partition: Partition) -> None:
        """The partition is gone before anybody is asked."""
        if partition in self.process.held():
            self.process.release(partition)
            self._run(self.process.stage.lost([partition]))
            self._run(self.process.assign(partition))

    @rule(stored=st.booleans(), count=st.integers(1, 3))
    def sink_is_unavailable(self, stored: bool, count: int) -> None:
        """Deliveries fail, and the window may be stored all the same."""
        self.process.failures += [(SinkUnavailable("busy"), stored)] * count

    @rule()
    def sink_refuses(self) -> None:
        self.process.failures.append((SinkRefused("no"), False))

    @rule(landed=st.booleans())
    def commit_fails(self, landed: bool) -> None:
        """The outcome of a commit is not known: the group is left and joined again."""
        self.process.lost_commits.append(landed)

    @rule(outcome=st.sampled_from(["aborted", "uncertain, done", "uncertain, not done"]))
    def transaction_fails(self, outcome: str) -> None:
        answers = {"uncertain, done": True, "uncertain, not done": False}
        self.process.transactions.append(answers.get(outcome, TransactionAborted("try again")))

    @rule(point=st.sampled_from(POINTS), after=st.integers(1, 3))
    def arm_crash(self, point: str, after: int) -> None:
        """The process dies when it next comes to this step."""
        crashpoints._passed.clear()
        crashpoints._armed.clear()
        crashpoints.arm(f"{point}:kill:{after}")

    @rule()
    def kill(self) -> None:
        """The process dies now; another one takes its partitions over."""
        self._replace()

    @rule()
    def freeze(self) -> None:
        """The process stands still, loses its partitions to another one, and goes on without knowing."""
        self._new_process()
        self._run(self.process.assign(*PARTITIONS))

    @rule(partition=partitions, count=st.integers(1, 10))
    def retention(self, partition: Partition, count: int) -> None:
        """Kafka deletes the oldest records, perhaps before they were exported."""
        log = self.world.logs[partition]
        log.low = min(log.high, log.low + count)
        self.overtaken |= self.world.committed.get(partition, (0, ""))[0] < log.low
        process = self.process
        if partition in process.held() and process.next[partition] < log.low:
            self._run(self.process.overtaken(partition))

    @rule()
    def hurry(self) -> None:
        """A person says that whatever stopped partitions is mended."""
        self._run(self._look_now())

    @rule(tight=st.booleans())
    def memory(self, tight: bool) -> None:
        """Windows may take little memory, or much."""
        self.process.budget.limit = self.tight if tight else 1 << 28

    @rule()
    def give_back(self) -> None:
        """Records that wait have filled their memory for a while."""
        self.process.stage.give_back()
        self._run()

    # ── what holds all the time ───────────────────────────────────────────────────────────────────────────

    @invariant()
    def no_error_ends_a_process(self) -> None:
        for process in self.made:
            died = [error for error in process.errors if not isinstance(error, Killed)]
            assert not (died and process.alive), died

    @invariant()
    def partitions_stop_only_for_records_that_are_gone(self) -> None:
        assert self.overtaken or not self.process.stage.stopped, self.process.stage.stopped

    def teardown(self) -> None:
        """Once nothing fails any more, everything that the topic still has is exported, once, and committed;
        and no memory is counted when the partitions are gone.
        """
        if not hasattr(self, "loop"):
            return
        try:
            self._heal()
            for partition in PARTITIONS:
                self._drain(partition)
            for partition in PARTITIONS:
                stopped = partition in self.process.stage.stopped
                assert self.overtaken or not stopped
                committed = self.world.committed.get(partition)
                assert stopped or self._exported(partition), (
                    f"{partition} rests at {committed}: {self.world.logs[partition].low} to "
                    f"{self.world.logs[partition].high}, next {self.process.next}, "
                    f"paused {self.process.paused}, held {self.process.held()}, "
                    f"stopped {self.process.stage.stopped}"
                )
            self._run(self.process.stage.lost(PARTITIONS))
            assert self.process.budget.used == 0
            assert self.process.account.settle() == 0
            self.no_error_ends_a_process()
        finally:
            self.patched.undo()
            crashpoints._armed.clear()
            for process in self.made:
                process.kill()
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self.loop.close()

    # ── how ───────────────────────────────────────────────────────────────────────────────────────────────

    def _heal(self) -> None:
        crashpoints._armed.clear()
        process = self.process
        process.failures, process.lost_commits, process.transactions = [], [], []
        process.budget.limit = 1 << 28
        self._run(asyncio.sleep(200))

    def _drain(self, partition: Partition) -> None:
        for _ in range(60):
            if partition in self.process.stage.stopped or self._exported(partition):
                break
            log = self.world.logs[partition]
            if self.process.next[partition] < log.low:
                self._run(self.process.overtaken(partition))
            elif partition not in self.process.paused:
                self.process.fetch(partition, 10)
            self._run(asyncio.sleep(70))

    def _exported(self, partition: Partition) -> bool:
        log = self.world.logs[partition]
        last = max((at for at in log.values if at >= log.low), default=-1)
        return self.world.committed.get(partition, (0, ""))[0] > last

    async def _look_now(self) -> None:
        self.process.stage.look_now()

    def _new_process(self) -> None:
        self.process = Process(self.world, budget=1 << 28, **self.settings)
        self.made.append(self.process)
        self.loop.run_until_complete(self.process.start())

    def _replace(self) -> None:
        self.process.kill()
        self._new_process()
        self._run(self.process.assign(*PARTITIONS))

    def _die(self, thread: int, action: object) -> None:
        self.process.kill()
        raise Killed

    def _run(self, work: object = None) -> None:
        """Do ``work``, then everything that needs no time to pass; replace a process that has died."""
        self.loop.run_until_complete(self._settle(work))
        process = self.process
        if not process.alive:
            self._replace()
        elif process.dropped:
            dropped, process.dropped = process.dropped, []
            self.loop.run_until_complete(self._rejoin(process, dropped))

    async def _settle(self, work: object) -> None:
        if asyncio.iscoroutine(work):
            task = asyncio.ensure_future(work)
            await asyncio.wait([task])
            if (
                not task.cancelled()
                and (error := task.exception()) is not None
                and not isinstance(error, Killed | OwnershipLost)  # the consumer goes on after the latter
            ):
                raise error
        await settled()
        await settled()

    async def _rejoin(self, process: Process, dropped: list[Partition]) -> None:
        await process.stage.lost(dropped)
        await process.assign(*dropped)
        await settled()


TestExportMachine = ExportMachine.TestCase
