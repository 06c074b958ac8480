"""The promises of the encoder and of the fingerprint, which every sink makes."""

import pickle
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from flagstream.testing.windows import PARTITION, StoredRecord, event, events, fill, noise


class Contract(ABC):
    """Tests what sinks and transactional sinks both promise."""

    sink_class: Callable[[Any], Any]
    """Makes a sink from its settings. It must be importable by name: a second process makes one too."""

    unacceptable: Sequence[bytes] = ()
    """Values that the format has to reject; empty for a format that takes anything."""

    @abstractmethod
    def settings(self) -> Any:
        """Return settings of a sink that works: equal for all calls within a test, and picklable."""

    @abstractmethod
    def settings_of_another_shape(self) -> Any:
        """Return settings under which the objects of the same records have other names or another shape."""

    def make_sink(self) -> Any:
        return self.sink_class(self.settings())

    def test_fingerprint_tells_shapes_apart(self) -> None:
        """Two sinks of one configuration share a fingerprint of 1 to 64 characters; another shape has
        another one.
        """
        fingerprint = self.make_sink().fingerprint
        assert fingerprint == self.make_sink().fingerprint
        assert fingerprint != self.sink_class(self.settings_of_another_shape()).fingerprint
        assert 1 <= len(fingerprint) <= 64

    def test_same_in_every_process(self) -> None:
        """Processes with different hash seeds agree on the fingerprint and on the encoded window."""
        values = events(200)
        one, other = (encode_elsewhere(self.sink_class, self.settings(), values, seed) for seed in ("1", "2"))
        assert one == other
        assert one[0] == self.make_sink().fingerprint

    def test_size_is_that_of_the_output(self) -> None:
        """A window begins with size 0; size never shrinks and a large window has one."""
        encoder = self.make_sink().begin(PARTITION, 0)
        sizes = [encoder.size]
        for number in range(20):
            values = [noise(number * 1000 + index) for index in range(1000)]
            encoder.add(values, [StoredRecord(number * 1000 + i, value) for i, value in enumerate(values)])
            sizes.append(encoder.size)
        assert sizes[0] == 0
        assert sizes == sorted(sizes)
        assert sizes[-1] > 0
        assert encoder.memory >= encoder.size

    def test_rejects_name_their_record(self) -> None:
        """Each unacceptable value is rejected at its index in the call, with a machine word and a text."""
        for bad in self.unacceptable:
            values = [event(0), bad, event(1)]
            records = [StoredRecord(index, value) for index, value in enumerate(values)]
            rejects = self.make_sink().begin(PARTITION, 0).add(values, records)
            assert [reject.index for reject in rejects] == [1], bad
            assert rejects[0].reason.replace("_", "").isalnum()
            assert rejects[0].error

    def test_empty_chunk_changes_nothing(self) -> None:
        """An empty chunk adds neither a record nor a reject."""
        encoder = self.make_sink().begin(PARTITION, 0)
        assert list(encoder.add([], [])) == []
        assert encoder.size == 0


def encode_elsewhere(
    sink_class: Callable[[Any], Any], settings: Any, values: Sequence[bytes], seed: str
) -> tuple[str, Any]:
    """Return the fingerprint, and the payload of a window of ``values``, that a process with the hash seed
    ``seed`` makes.
    """
    answer = subprocess.run(
        [sys.executable, "-c", "from flagstream.testing.contract import answer; answer()"],
        input=pickle.dumps(sys.path) + pickle.dumps((sink_class, settings, list(values))),
        stdout=subprocess.PIPE,
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        check=True,
        timeout=60,
    )
    fingerprint, payload = pickle.loads(answer.stdout)
    return fingerprint, payload


def answer() -> None:
    """Read what to encode, and write the result: the process of :func:`encode_elsewhere` runs it."""
    sys.path[:] = pickle.load(sys.stdin.buffer)
    sink_class, settings, values = pickle.load(sys.stdin.buffer)
    sink = sink_class(settings)
    sys.stdout.buffer.write(pickle.dumps((sink.fingerprint, fill(sink, values).payload)))
