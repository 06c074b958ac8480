"""What must be asked again, waited for, or not believed at once: each would lose or double a window."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

from flagstream.errors import TransactionAborted
from flagstream.export.denials import Denials
from flagstream.export.routes import route_to
from flagstream.export.transactions import WindowTransactions
from flagstream.export.windows import ClosedWindow
from flagstream.sinks.settings import SinkSettings
from flagstream.window import Manifest, OffsetRange
from tests.support.recording import PARTITION, RecordingSink


def test_the_first_denial_never_counts() -> None:
    """The client that met it may be at fault, and the next try has a new one: also without any wait."""
    denials = Denials(0.0)

    assert not denials.counts(PARTITION, 10.0)
    assert denials.counts(PARTITION, 10.5)


class Producer:
    """A transactional producer whose commits get ``answers``; it notes the group's metadata of each."""

    def __init__(self, *answers: Exception | None) -> None:
        self.limit = 1_000_000
        self.stable = False
        self.groups: list[object] = []
        self._answers = list(answers)

    def open(self) -> None: ...

    def begin(self) -> None: ...

    def commit(self, offsets: object, group: object) -> None:
        self.groups.append(group)
        if (answer := self._answers.pop(0)) is not None:
            raise answer


class Calls:
    """The calls of a sink, without a wait; it notes what each call is for."""

    opened = True

    def __init__(self) -> None:
        self.what: list[str] = []
        self.status: Any = SimpleNamespace(begun=self._note, failed=self._note, over=self._note)

    def _note(self, *facts: object) -> None: ...

    async def pause(self, seconds: float) -> None: ...

    async def call_sink(self, what: str, tenure: object, function: Any) -> Any:
        self.what.append(what)
        return function()


class Tenure:
    """A tenure whose group has other metadata each time."""

    partition = PARTITION

    def __init__(self) -> None:
        self._asked = 0

    async def group_metadata(self) -> str:
        self._asked += 1
        return f"metadata {self._asked}"

    def committed_in_transaction(self, offset: int) -> None: ...


def transactions(producer: Producer) -> Any:
    """The transactions of a sink with this producer."""
    unused: Any = producer
    calls: Any = Calls()
    return WindowTransactions("test", RecordingSink([]), unused, "dead", calls, lambda *args: None)


def test_every_try_of_a_transaction_checks_the_epoch() -> None:
    """Each try reads the metadata of the group again, in the step that checks that the partition is held."""
    producer = Producer(TransactionAborted("broken"), None)

    asyncio.run(transactions(producer).transact(Tenure(), lambda t: None, [], 5, "{}"))

    assert producer.groups == ["metadata 1", "metadata 2"]


def test_a_rewind_waits_for_the_transaction_in_the_thread() -> None:
    """The generation of the group stays the same, so nothing else keeps Kafka from committing it later."""
    going_on = threading.Event()

    class Slow(Producer):
        def commit(self, offsets: object, group: object) -> None:
            going_on.wait(10)
            super().commit(offsets, group)

    async def play() -> list[bool]:
        producer = Slow(None)
        made = transactions(producer)
        under_way = asyncio.create_task(made.transact(Tenure(), lambda t: None, [], 5, "{}"))
        for _ in range(3):
            await asyncio.sleep(0)
        idle = asyncio.create_task(made.idle())
        done, _ = await asyncio.wait([idle], timeout=0.05)
        going_on.set()
        await idle
        committed = bool(producer.groups)
        await under_way
        return [bool(done), committed]

    assert asyncio.run(play()) == [False, True]


def test_a_window_that_may_be_stored_in_part_is_not_refused() -> None:
    """A window that was found after lost offsets is adopted: what the sink refuses of it is tried again."""
    calls: Any = Calls()
    range_ = OffsetRange(PARTITION, 10, 17)
    sink = RecordingSink([])
    window = ClosedWindow(range_, 10, Manifest(range_, 7, "d", "shape"), [], "events", 0, 0, None, None, ())
    window.payload = [b""]

    async def nothing(*args: object) -> None: ...

    for rediscovered in (True, False):
        commits: Any = SimpleNamespace(
            tenure=Tenure(),
            planned=None,
            rediscovered=lambda one, found=rediscovered: found,
            plan=nothing,
            end=nothing,
        )
        route = route_to("test", sink, SinkSettings(type="test"), calls, calls)
        asyncio.run(route.export(window, lambda: None, commits))

    assert calls.what == ["adopt", "deliver"]
