"""The watchdog: what hangs or dies is noticed, what only paused is not."""

import threading

from flagstream.operate.watchdog import LOOK_SECONDS, Watchdog


class Watched:
    """Parts that move when the test says so, and threads that end when it says so."""

    def __init__(self) -> None:
        self.moved = {"event loop": 0.0, "archive": 0.0}
        self.threads: list[threading.Thread] = []
        self.stuck: list[list[str]] = []
        self.dead: list[list[str]] = []
        self.dog = Watchdog(
            lambda: self.moved,
            limit=3,
            stuck=self.stuck.append,
            dead=self.dead.append,
            threads=lambda: self.threads,
        )

    def look(self, *moving: str) -> None:
        """A look after which `moving` had moved."""
        for name in moving:
            self.moved[name] += 1
        self.dog.look()
        self.dog.look_at_threads()


def test_a_part_that_stands_still_for_the_limit_is_stuck() -> None:
    """The event loop counts like a consumer's thread; one that moves on is left alone."""
    watched = Watched()

    for _ in range(3):
        watched.look("archive")
    assert watched.stuck == []

    watched.look("archive")
    assert watched.stuck == [["event loop"]]


def test_a_part_that_moves_in_time_begins_again() -> None:
    """Looks count in a row only."""
    watched = Watched()

    for _ in range(3):
        watched.look("archive", "event loop")
        watched.look("archive")
        watched.look("archive")

    assert watched.stuck == []


def test_a_frozen_process_is_not_stuck_when_it_wakes() -> None:
    """Looks are counted: however late the next one is, it is one look."""
    watched = Watched()
    watched.look()

    watched.moved = {name: value + 10_000.0 for name, value in watched.moved.items()}
    watched.look()

    assert watched.stuck == []


def test_a_thread_that_has_to_last_and_ended_is_reported_once() -> None:
    """A consumer's thread that is gone is a death; the thread of one bounded call is not."""
    watched = Watched()
    go = threading.Event()
    for name in ("consumer-archive", "sleep-watch", "transaction-call"):
        thread = threading.Thread(target=go.wait, name=name)
        thread.start()
        watched.threads.append(thread)
    watched.look()

    go.set()
    for thread in watched.threads:
        thread.join()
    watched.look()
    watched.look()

    assert watched.dead == [["consumer-archive", "sleep-watch"]]


def test_a_thread_that_is_about_to_start_has_not_ended() -> None:
    """Python lists a thread from before it lives; it is not taken for one that died."""
    watched = Watched()
    watched.threads.append(threading.Thread(target=int, name="sink-archive_0"))

    watched.look()

    assert watched.dead == []


def test_threads_end_with_the_process() -> None:
    """Once the process stops, ended threads are its order."""
    watched = Watched()
    thread = threading.Thread(target=int, name="sink-archive_0")
    thread.start()
    watched.threads.append(thread)
    watched.dog.stop()

    thread.join()
    watched.look()

    assert watched.dead == []


def test_a_thread_that_dies_early_is_seen() -> None:
    """Threads are looked at from the start on, and far more often than what moves."""
    watched = Watched()
    died = threading.Event()
    go = threading.Event()
    thread = threading.Thread(target=go.wait, name="sink-archive_0")
    thread.start()
    looked = threading.Event()

    def threads() -> list[threading.Thread]:
        looked.set()
        return [thread]

    dog = Watchdog(dict, limit=3, stuck=watched.stuck.append, dead=lambda _: died.set(), threads=threads)
    dog.start()
    assert looked.wait(LOOK_SECONDS / 2)
    go.set()
    assert died.wait(10)
    dog.stop()
