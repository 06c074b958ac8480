"""What a sink of objects asks of its store."""

from collections.abc import Iterator
from pathlib import Path

from worker.chunk import Partition
from worker.sinks.file import FileSettings, FileStore
from worker.sinks.objects import ObjectSink
from worker.window import Range

WIDE = Range(Partition("evaluations", 3), 0, 5_000_000)


class _Store(FileStore):
    """Lists one object, unless it may be left out."""

    def names(self, prefix: str, after: str = "") -> Iterator[str]:
        name = f"evaluations/3/{WIDE.start:019}-{WIDE.end:019}.jsonl.gz"
        return iter([name] if name > after else [])


def test_a_window_of_few_events_may_be_wider_than_any_limit() -> None:
    """What a filter leaves out closes no window; one that reaches beyond a position is found all the same."""
    settings = FileSettings(path=Path("unused"), events="tracking")
    sink = ObjectSink(_Store(settings.path), settings)

    assert sink.holdings(WIDE.partition, 3_000_000) == [WIDE]
