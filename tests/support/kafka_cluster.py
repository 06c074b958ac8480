"""Several brokers of one cluster, as processes that a test kills and starts again."""

import contextlib
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from confluent_kafka.admin import AdminClient

from tests.support.kafka_process import KafkaBroker, answers
from tests.support.running_worker import eventually

BROKERS = 3


class KafkaCluster:
    """Three brokers, each also a controller; every topic that is created has three copies, of which two have
    to be there. A context manager. The transactions, and the groups, have one coordinator each, which
    :meth:`coordinator` finds.
    """

    def __init__(self, properties: Mapping[str, str] | None = None) -> None:
        shared = {
            "offsets.topic.replication.factor": "3",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "3",
            "transaction.state.log.min.isr": "2",
            "transaction.state.log.num.partitions": "1",
            "default.replication.factor": "3",
            "min.insync.replicas": "2",
            "broker.session.timeout.ms": "6000",
            **(properties or {}),
        }
        self.brokers = [KafkaBroker() for _ in range(BROKERS)]
        voters = ",".join(
            f"{number}@127.0.0.1:{broker.controller_port}" for number, broker in enumerate(self.brokers, 1)
        )
        for number, broker in enumerate(self.brokers, 1):
            broker.configure({**shared, "node.id": str(number), "controller.quorum.voters": voters})
        self.bootstrap_servers = ",".join(broker.bootstrap_servers for broker in self.brokers)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for broker in self.brokers:
                stack.callback(broker.close)
                broker.prepare()
                broker.launch()
            eventually(lambda: answers(self.bootstrap_servers, timeout=2.0), timeout=90)
            admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
            eventually(lambda: len(admin.list_topics(timeout=10).brokers) == BROKERS, timeout=90)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def coordinator(self, internal_topic: str) -> KafkaBroker:
        """The broker that leads the only partition of ``__transaction_state`` or ``__consumer_offsets``."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        leaders: list[int] = []

        def led() -> bool:
            found = admin.list_topics(internal_topic, timeout=10).topics[internal_topic]
            leaders[:] = [p.leader for p in found.partitions.values()]
            return found.error is None and leaders != [] and leaders[0] > 0

        eventually(led)
        return self.brokers[leaders[0] - 1]
