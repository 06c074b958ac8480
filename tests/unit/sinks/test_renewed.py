"""A client that is made again when it is denied, idle or old."""

import threading
from contextlib import nullcontext
from dataclasses import dataclass, field

import pytest

from flagstream.errors import SinkRefused, SinkUnavailable
from flagstream.sinks.objects.renewed import AGE_SECONDS, IDLE_SECONDS, Renewed

DENIED = SinkRefused("no right", denied=True)


@dataclass
class Rig:
    """Clients are numbers from 1 on; those in ``good`` are not denied."""

    good: set[int] = field(default_factory=lambda: {1})
    now: float = 1_000.0
    made: int = 0
    closed: list[int] = field(default_factory=list)
    used: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.renewed: Renewed[int] = Renewed(
            self._make, self.closed.append, lambda what: nullcontext(), clock=lambda: self.now
        )

    def _make(self) -> int:
        self.made += 1
        return self.made

    def ask(self) -> int:
        client = self.renewed.client
        self.used.append(client)
        if client not in self.good:
            raise DENIED
        return client


def test_one_client_serves_all_calls() -> None:
    """It is made when it is first used."""
    rig = Rig()
    assert rig.made == 0
    assert [rig.renewed.call("asking", rig.ask) for _ in range(3)] == [1, 1, 1]
    assert rig.closed == []


def test_a_denied_call_is_tried_once_more_with_a_new_client() -> None:
    """Credentials that were replaced meanwhile cost no failure."""
    rig = Rig()
    rig.renewed.call("asking", rig.ask)
    rig.good = {2}
    assert rig.renewed.call("asking", rig.ask) == 2
    assert rig.closed == [1]


def test_a_denial_is_raised_by_a_new_client_only() -> None:
    """The next call begins with another client, but asks once: it is new already."""
    rig = Rig()
    rig.renewed.call("asking", rig.ask)
    rig.good = set()
    with pytest.raises(SinkRefused):
        rig.renewed.call("asking", rig.ask)
    assert rig.used == [1, 1, 2]
    with pytest.raises(SinkRefused):
        rig.renewed.call("asking", rig.ask)
    assert rig.used == [1, 1, 2, 3]
    rig.good = {4}
    assert rig.renewed.call("asking", rig.ask) == 4


@pytest.mark.parametrize("error", [SinkUnavailable("down"), SinkRefused("too large")], ids=str)
def test_other_failures_leave_the_client(error: Exception) -> None:
    """An error that is not a denial is not about credentials."""
    rig = Rig()

    def fail() -> None:
        rig.ask()
        raise error

    with pytest.raises(type(error)):
        rig.renewed.call("asking", fail)
    assert rig.renewed.call("asking", rig.ask) == 1
    assert rig.used == [1, 1]


def test_a_client_that_cannot_be_made() -> None:
    """It is tried once a call, and works as soon as it can be made."""
    tries = []

    def make() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise DENIED
        return 7

    renewed: Renewed[int] = Renewed(make, lambda client: None, lambda what: nullcontext())
    for _ in range(2):
        with pytest.raises(SinkRefused):
            renewed.call("asking", lambda: renewed.client)
    assert renewed.call("asking", lambda: renewed.client) == 7
    assert len(tries) == 3


@pytest.mark.parametrize("pause", [IDLE_SECONDS, AGE_SECONDS])
def test_connections_have_an_age(pause: float) -> None:
    """A client that rested or worked for long is replaced, with its connections."""
    rig = Rig(good={1, 2})
    rig.renewed.call("asking", rig.ask)
    for _ in range(int(AGE_SECONDS / 100) if pause == AGE_SECONDS else 0):
        rig.now += 100
        assert rig.renewed.call("asking", rig.ask) in {1, 2}
    rig.now += pause + 1 if pause == IDLE_SECONDS else 1
    assert rig.renewed.call("asking", rig.ask) == 2
    assert rig.closed == [1]


def test_a_client_in_use_is_not_closed() -> None:
    """One that was replaced while another thread uses it is closed when no call is under way."""
    rig = Rig()
    entered, leave = threading.Event(), threading.Event()

    def linger() -> int:
        client = rig.ask()
        entered.set()
        assert leave.wait(10)
        return client

    thread = threading.Thread(target=rig.renewed.call, args=["asking", linger])
    thread.start()
    assert entered.wait(10)
    rig.good = {2}
    assert rig.renewed.call("asking", rig.ask) == 2
    assert rig.closed == []
    leave.set()
    thread.join(10)
    assert rig.closed == [1]


def test_several_threads_that_are_denied_make_one_client() -> None:
    """Each was denied by the old one; the first to learn it makes the new one for all."""
    rig = Rig()
    rig.renewed.call("asking", rig.ask)
    rig.good = {2}
    line = threading.Barrier(4)
    answers = []

    def ask() -> int:
        client = rig.renewed.client
        if client == 1:
            line.wait(10)
            raise DENIED
        return client

    threads = [
        threading.Thread(target=lambda: answers.append(rig.renewed.call("asking", ask))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert answers == [2] * 4
    assert rig.made == 2


def test_close() -> None:
    """A client that was made is closed; where none was, nothing happens."""
    rig = Rig()
    rig.renewed.close()
    rig.renewed.call("asking", rig.ask)
    rig.renewed.close()
    assert rig.closed == [1]
