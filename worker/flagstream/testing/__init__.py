"""The suite that every sink passes. A test class inherits a contract and says how to make and read its sink.

::

    class TestMine(CreateOnlyContract):
        sink_class = MySink

        @pytest.fixture(autouse=True)
        def place(self, tmp_path):
            self.tmp_path = tmp_path

        def settings(self):
            return MySettings(path=self.tmp_path)
        ...

* :class:`SinkContract` is for any :class:`~flagstream.sinks.protocol.Sink`, also for one that cannot know
  what it holds (at least once).
* :class:`CreateOnlyContract` adds that each window is delivered exactly once.
* :class:`TransactionalSinkContract` is for a :class:`~flagstream.sinks.protocol.TransactionalSink`.

It needs pytest, which the worker itself does not.
"""

import pytest

# pytest explains the asserts of a module only if it knows the module's name before the first import.
pytest.register_assert_rewrite(
    *(f"{__name__}.{name}" for name in ("contract", "sink", "create_only", "transactional"))
)

from flagstream.testing.contract import encode_elsewhere as encode_elsewhere
from flagstream.testing.create_only import RACERS as RACERS
from flagstream.testing.create_only import CreateOnlyContract as CreateOnlyContract
from flagstream.testing.sink import SinkContract as SinkContract
from flagstream.testing.transactional import Produced as Produced
from flagstream.testing.transactional import RecordedTransaction as RecordedTransaction
from flagstream.testing.transactional import TransactionalSinkContract as TransactionalSinkContract
from flagstream.testing.windows import NEIGHBOURS as NEIGHBOURS
from flagstream.testing.windows import PARTITION as PARTITION
from flagstream.testing.windows import StoredRecord as StoredRecord
from flagstream.testing.windows import Window as Window
from flagstream.testing.windows import event as event
from flagstream.testing.windows import events as events
from flagstream.testing.windows import fill as fill
