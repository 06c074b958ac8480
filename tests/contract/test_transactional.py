"""The contract of transactional sinks holds for a small sink that copies records to another topic."""

from collections.abc import Sequence
from dataclasses import dataclass

from flagstream.chunk import Partition, Record
from flagstream.outcomes import Reject
from flagstream.sinks.protocol import Transaction, TransactionalSink, WindowEncoder
from flagstream.testing import Produced, TransactionalSinkContract
from flagstream.window import Manifest


@dataclass(frozen=True)
class CopySettings:
    """Says where the copies go."""

    topic: str


class CopyEncoder:
    """Keeps values that look like objects."""

    def __init__(self) -> None:
        self._values: list[bytes] = []
        self.size = 0

    @property
    def memory(self) -> int:
        return self.size

    def add(self, values: Sequence[bytes], records: Sequence[Record]) -> Sequence[Reject]:
        rejects = []
        for index, value in enumerate(values):
            if value.startswith(b"{"):
                self._values.append(value)
                self.size += len(value)
            else:
                rejects.append(Reject(index, "not_an_object", f"{value[:20]!r} is not an object"))
        return rejects

    def finish(self, manifest: Manifest) -> tuple[bytes, ...]:
        return tuple(self._values)


class CopySink:
    """Produces each record to a topic."""

    def __init__(self, settings: CopySettings) -> None:
        self._topic = settings.topic
        self.fingerprint = f"copy-{settings.topic}"

    def begin(self, partition: Partition, start: int) -> WindowEncoder[tuple[bytes, ...]]:
        return CopyEncoder()

    def deliver_in(self, transaction: Transaction, manifest: Manifest, payload: tuple[bytes, ...]) -> None:
        for value in payload:
            transaction.produce(self._topic, key=None, value=value, headers=[])


class TestCopy(TransactionalSinkContract):
    """The contract holds for the copying sink."""

    sink_class = CopySink
    unacceptable = (b"text", b"")

    def settings(self) -> CopySettings:
        return CopySettings("copies")

    def settings_of_another_shape(self) -> CopySettings:
        return CopySettings("elsewhere")

    def read_back(self, produced: Sequence[Produced]) -> list[bytes]:
        return [record.value for record in produced if record.value is not None]


def test_is_told_from_a_plain_sink() -> None:
    """The engine distinguishes the two shapes by what they can do."""
    assert isinstance(CopySink(CopySettings("copies")), TransactionalSink)
