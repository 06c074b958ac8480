"""The contract of a sink that delivers each window exactly once."""

import threading
from abc import abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from flagstream.errors import ObjectConflict
from flagstream.sinks.protocol import Delivery, Sink
from flagstream.testing.sink import SinkContract
from flagstream.testing.windows import NEIGHBOURS, PARTITION, Window, event, events, fill, noise
from flagstream.window import OffsetRange

RACERS = 8
"""Workers that deliver one window at the same moment."""


class CreateOnlyContract(SinkContract):
    """What a sink promises that stores each window once, however often and by whomever it is delivered."""

    @abstractmethod
    def die_half_way(self, window: Window) -> None:
        """Leave at the destination what a process leaves behind that is killed while it delivers
        ``window``.
        """

    def test_twice_is_once(self) -> None:
        """The second delivery finds the first one's objects, stores nothing, and says so."""
        first, second = self.opened(), self.opened()
        window, again = fill(first, events(10)), fill(second, events(10))
        created = first.deliver(window.manifest, window.payload)
        found = second.deliver(again.manifest, again.payload)
        assert Delivery(created=0, existing=created.created, bytes=0) == found
        self.assert_holds(window)

    def test_cuts_do_not_matter(self) -> None:
        """A window that was fetched in other chunks is still the same window."""
        sink = self.opened()
        values = [noise(number) for number in range(3000)]
        whole, cut = fill(sink, values), fill(sink, values, cuts=[1, 2, 1500, 2999])
        sink.deliver(whole.manifest, whole.payload)
        assert sink.deliver(cut.manifest, cut.payload).created == 0
        self.assert_holds(whole)

    def test_rejects_delivered_again(self) -> None:
        """A window with rejects that is delivered again is found as well."""
        sink = self.opened()
        values = [event(0), *self.unacceptable, event(1)]
        window, again = fill(sink, values), fill(sink, values, cuts=[1])
        sink.deliver(window.manifest, window.payload)
        assert sink.deliver(again.manifest, again.payload).created == 0
        self.assert_holds(window)

    @pytest.mark.parametrize(
        "others",
        [events(10, 500), events(11)[1:], [*events(9), event(9, '"off"')], events(9)],
        ids=["other records", "shifted", "last differs", "fewer"],
    )
    def test_other_content_is_a_conflict(self, others: list[bytes]) -> None:
        """Other content under the same range raises ObjectConflict, and what was there first stays."""
        sink = self.opened()
        window = fill(sink, events(10))
        other = fill(sink, others, offsets=range(10 - len(others), 10))
        assert window.manifest.range == other.manifest.range
        sink.deliver(window.manifest, window.payload)
        with pytest.raises(ObjectConflict, match=r"\w"):
            sink.deliver(other.manifest, other.payload)
        self.assert_holds(window)

    def test_race_has_one_winner(self) -> None:
        """Of several workers that deliver one window at the same moment, one creates and all succeed."""
        for start in range(0, 500, 100):
            sinks = [self.opened() for _ in range(RACERS)]
            windows = [fill(sink, events(100, start), start=start) for sink in sinks]
            line = threading.Barrier(RACERS)

            def run(racer: tuple[Sink[Any], Window], line: threading.Barrier = line) -> Delivery:
                line.wait()
                return racer[0].deliver(racer[1].manifest, racer[1].payload)

            with ThreadPoolExecutor(RACERS) as pool:
                deliveries = list(pool.map(run, zip(sinks, windows, strict=True)))
            objects = max(delivery.created + delivery.existing for delivery in deliveries)
            assert objects == sum(delivery.created for delivery in deliveries)
            assert objects * (RACERS - 1) == sum(delivery.existing for delivery in deliveries)
        self.assert_holds(*[fill(self.make_sink(), events(100, at), start=at) for at in range(0, 500, 100)])

    def test_holdings(self) -> None:
        """Holdings are the ranges that end after an offset, in order, whatever the order of delivery."""
        sink = self.opened()
        edges = [
            (100, 110),
            (0, 10),
            (10, 100),
            (110, 1_000_000_000_000),
            (1_000_000_000_000, 1_000_000_000_001),
        ]
        for start, end in edges:
            window = fill(sink, events(1, start), start=start, offsets=[end - 1])
            sink.deliver(window.manifest, window.payload)
        ranges = [OffsetRange(PARTITION, start, end) for start, end in sorted(edges)]
        assert ranges == list(sink.holdings(PARTITION, 0) or ())
        assert ranges == list(sink.holdings(PARTITION, 9) or ())
        assert ranges[1:] == list(sink.holdings(PARTITION, 10) or ())
        assert ranges[1:] == list(sink.holdings(PARTITION, 50) or ())
        assert ranges[-1:] == list(sink.holdings(PARTITION, 1_000_000_000_000) or ())
        assert list(sink.holdings(PARTITION, 1_000_000_000_001) or ()) == []

    def test_holdings_of_neighbours(self) -> None:
        """Partitions whose names resemble each other do not see each other's ranges."""
        sink = self.opened()
        for index, partition in enumerate(NEIGHBOURS):
            window = fill(sink, events(1), partition=partition, start=index)
            sink.deliver(window.manifest, window.payload)
        for index, partition in enumerate(NEIGHBOURS):
            assert [OffsetRange(partition, index, index + 1)] == list(sink.holdings(partition, 0) or ()), (
                partition
            )

    def test_death_half_way_leaves_nothing_visible(self) -> None:
        """What a killed process left behind is neither an object nor a holding, and the next delivery
        succeeds.
        """
        sink = self.opened()
        window = fill(sink, events(1000))
        self.die_half_way(window)
        assert self.read_back() == []
        assert list(sink.holdings(PARTITION, 0) or ()) == []
        survivor = self.opened()
        assert survivor.deliver(window.manifest, window.payload).existing == 0
        self.assert_holds(window)
