"""The contract of a sink that delivers windows."""

from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from flagstream.errors import SinkRefused
from flagstream.sinks.protocol import PartsSink, Sink
from flagstream.testing.contract import Contract
from flagstream.testing.windows import NEIGHBOURS, PARTITION, Window, event, events, fill, noise
from flagstream.window import OffsetRange


class SinkContract(Contract):
    """What any sink promises: at least once. A window that is delivered again may be there twice."""

    @abstractmethod
    def refusing_settings(self) -> Any:
        """Return settings of a sink whose destination refuses it for good (no permission, not there)."""

    @abstractmethod
    def read_back(self) -> list[bytes] | None:
        """Return all records at the destination of ``settings`` as readers see them, or None if nobody can
        read them.
        """

    def expected(self, values: Sequence[bytes]) -> list[bytes]:
        """Return ``values`` as ``read_back`` returns them; a format that changes them overrides this."""
        return list(values)

    def opened(self) -> Sink[Any]:
        sink: Sink[Any] = self.make_sink()
        sink.open()
        return sink

    def assert_holds(self, *windows: Window) -> None:
        """Assert that the destination holds the records of ``windows``, each once, and nothing else."""
        found = self.read_back()
        if found is not None:
            expected = [line for window in windows for line in self.expected(window.exported)]
            assert sorted(expected) == sorted(found)

    def test_delivers_a_window(self) -> None:
        """When ``deliver`` has returned, the destination holds each record once."""
        sink = self.opened()
        window = fill(sink, events(100), start=1000)
        delivery = sink.deliver(window.manifest, window.payload)
        assert (delivery.created >= 1, delivery.existing) == (True, 0)
        assert delivery.bytes > 0
        self.assert_holds(window)

    def test_one_record(self) -> None:
        """A window of one record is a window like any other."""
        sink = self.opened()
        window = fill(sink, events(1), start=7)
        sink.deliver(window.manifest, window.payload)
        self.assert_holds(window)

    def test_large_window(self) -> None:
        """A window of several megabytes that hardly compress arrives whole."""
        sink = self.opened()
        window = fill(sink, [noise(number) for number in range(20_000)], cuts=range(5000, 20_000, 5000))
        sink.deliver(window.manifest, window.payload)
        self.assert_holds(window)

    def test_gaps_in_offsets(self) -> None:
        """Offsets that transaction markers took leave no trace."""
        sink = self.opened()
        window = fill(sink, events(3), start=8, offsets=[10, 12, 19])
        assert OffsetRange(PARTITION, 8, 20) == window.manifest.range
        sink.deliver(window.manifest, window.payload)
        self.assert_holds(window)

    def test_again_is_no_error(self) -> None:
        """The same window delivered again, by another worker, succeeds; every record is there."""
        first, second = self.opened(), self.opened()
        values = events(10)
        once, again = fill(first, values), fill(second, values, cuts=[3])
        first.deliver(once.manifest, once.payload)
        second.deliver(again.manifest, again.payload)
        found = self.read_back()
        assert found is None or set(self.expected(values)) <= set(found)

    def test_rejects_leave_no_trace(self) -> None:
        """Rejected values are not delivered, and the rest of their window is."""
        sink = self.opened()
        values = [event(0), *self.unacceptable, event(1)]
        window = fill(sink, values)
        assert window.exported == [event(0), event(1)]
        sink.deliver(window.manifest, window.payload)
        self.assert_holds(window)

    def test_chunk_of_rejects_only(self) -> None:
        """A chunk of which every value is rejected leaves the window as it was."""
        sink = self.opened()
        values = [event(0), *self.unacceptable, event(1)]
        window = fill(sink, values, cuts=[1, len(values) - 1])
        sink.deliver(window.manifest, window.payload)
        self.assert_holds(window)

    def test_several_partitions_at_once(self) -> None:
        """Windows of different partitions, delivered by one sink from several threads, all arrive."""
        sink = self.opened()
        windows = [fill(sink, events(50, index * 50), partition=p) for index, p in enumerate(NEIGHBOURS)]
        with ThreadPoolExecutor(len(windows)) as pool:
            list(pool.map(lambda window: sink.deliver(window.manifest, window.payload), windows))
        self.assert_holds(*windows)

    def test_parts_can_be_divided(self) -> None:
        """The parts of a sink that sends parts tile the window, and so do their halves, down to the event."""
        sink = self.opened()
        if not isinstance(sink, PartsSink):
            return
        window = fill(sink, events(50), start=1000)
        parts = list(sink.parts(window.payload))
        while several := next((part for part in parts if part.count > 1), None):
            at = parts.index(several)
            parts[at : at + 1] = several.split(several.middle)
            edges = [window.manifest.range.start, *(part.range.end for part in parts)]
            assert [part.range.start for part in parts] == edges[:-1]
            assert edges[-1] == window.manifest.range.end
            assert sum(part.count for part in parts) == 50
        for part in parts:
            sink.send(window.manifest, part)
        self.assert_holds(window)

    def test_refused_when_opened(self) -> None:
        """``open`` raises SinkRefused if the destination refuses, before the first window."""
        with pytest.raises(SinkRefused, match=r"\w"):
            self.sink_class(self.refusing_settings()).open()

    def test_refused_is_not_already_there(self) -> None:
        """A refusal is never taken for a window that is there already."""
        sink = self.sink_class(self.refusing_settings())
        window = fill(sink, events(2))
        with pytest.raises(SinkRefused):
            sink.deliver(window.manifest, window.payload)

    def test_close_releases(self) -> None:
        """A sink can be closed after use, and after ``open`` alone; what it delivered stays."""
        self.opened().close()
        sink = self.opened()
        window = fill(sink, events(5))
        sink.deliver(window.manifest, window.payload)
        sink.close()
        self.assert_holds(window)

    def test_proves_what_it_may_do(self) -> None:
        """No probe fails on a destination that works, whose records and ranges stay as they were."""
        sink = self.opened()
        proofs = list(sink.probe())
        assert proofs
        assert [proof for proof in proofs if proof.outcome == "failed"] == []
        assert all(proof.detail for proof in proofs if proof.outcome == "unproved"), (
            "an unproved one says why"
        )
        assert not self.read_back()
        assert not sink.holdings(PARTITION, 0)

    def test_refused_is_a_failed_proof(self) -> None:
        """``probe`` reports a refusal with its reason and does not raise it."""
        proofs = list(self.sink_class(self.refusing_settings()).probe())
        assert [proof for proof in proofs if proof.outcome == "failed" and proof.detail]

    def test_previews_a_window(self) -> None:
        """A preview shows the first record of the window, and nothing is stored."""
        sink = self.opened()
        window = fill(sink, events(3))
        assert sink.preview(window.manifest, window.payload).record
        assert not self.read_back()

    def test_holdings_are_unknown_or_ranges(self) -> None:
        """An empty destination has no holdings; a sink that cannot know them always returns None."""
        sink = self.opened()
        before = sink.holdings(PARTITION, 0)
        assert before is None or list(before) == []
        window = fill(sink, events(5))
        sink.deliver(window.manifest, window.payload)
        after = sink.holdings(PARTITION, 0)
        assert (after is None) == (before is None)
