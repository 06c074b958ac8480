"""Whether the process stood still."""

from flagstream.operate.sleeping import STILL_SECONDS, TICK_SECONDS, SleepWatch


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_process_that_ticks_has_not_stood_still() -> None:
    """A tick may come late, as on a busy machine."""
    clock = Clock()
    watch = SleepWatch(clock)
    for pause in (TICK_SECONDS, STILL_SECONDS, TICK_SECONDS):
        clock.now += pause
        watch.tick()

    assert not watch.stood_still_since(100.0)


def test_a_gap_shows_before_and_after_the_first_tick() -> None:
    """Whoever asks right after waking may be faster than the thread that ticks."""
    clock = Clock()
    watch = SleepWatch(clock)
    clock.now += 10

    assert watch.stood_still_since(100.0)
    watch.tick()
    assert watch.stood_still_since(100.0)
    assert not watch.stood_still_since(clock.now + 1)


def test_a_short_sleep_counts_for_who_has_little_time() -> None:
    """A transaction of three seconds times out while the process stands still for less than four."""
    now = 100.0
    watch = SleepWatch(lambda: now)
    now += 3.5
    watch.tick()
    now += TICK_SECONDS
    watch.tick()

    assert not watch.stood_still_since(100.0)
    assert watch.stood_still_since(100.0, 1.5)
    assert not watch.stood_still_since(104.0, 1.5)
