"""What librdkafka fetches of the partitions that are held: pause, resume, seek.

The stage pauses single partitions. The consumer's thread *throttles* all of them while the stage has no room.
A partition is fetched only when neither holds it back.
"""

from collections.abc import Iterable, Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from flagstream.chunk import Partition, Position
from flagstream.kafka.assignment import Assignment


class Fetching:
    """Steers ``consumer``, which is set before the first call. Only the consumer's thread calls the methods.

    ``throttled``: nothing is fetched until :meth:`unthrottle`. ``finished``: that will not come.
    """

    consumer: Consumer

    def __init__(self, assignment: Assignment) -> None:
        self.throttled = False
        self.finished = False
        self._assignment = assignment

    def assign(self, positions: Mapping[Partition, Position]) -> None:
        """The group has given the partitions to this member; they are fetched from ``positions`` on."""
        self.consumer.incremental_assign(
            [TopicPartition(p.topic, p.index, position.offset) for p, position in positions.items()]
        )
        if positions:
            # Neither goes without saying: librdkafka keeps a partition paused that was taken away while it
            # was.
            (self.consumer.pause if self.throttled else self.consumer.resume)(_named(positions))

    def pause(self, partition: Partition) -> None:
        """The stage wants nothing more of the partition for now."""
        self._assignment.paused.add(partition)
        self.consumer.pause(_named([partition]))

    def resume(self, partition: Partition) -> None:
        """The stage wants a paused partition again, from its next offset on."""
        self._assignment.paused.discard(partition)
        if not self.throttled:
            self._start(partition)

    def restart(self, partition: Partition) -> None:
        """The partition was rewound: fetch it from its next offset on. A pause for the former work is
        over.
        """
        if partition in self._assignment.paused:
            self._assignment.paused.discard(partition)
            if not self.throttled:
                self.consumer.resume(_named([partition]))
        self.seek(partition)

    def throttle(self) -> None:
        """Fetch nothing for a while, but go on polling."""
        self.throttled = True
        self.consumer.pause(_named(self._assignment.positions))

    def unthrottle(self) -> None:
        """Fetch all partitions again but those that the stage has paused."""
        self.throttled = False
        for partition in self._assignment.positions.keys() - self._assignment.paused:
            self._start(partition)

    def seek(self, partition: Partition) -> None:
        """Fetch the partition from its next offset on, as soon as it is fetched."""
        target = TopicPartition(partition.topic, partition.index, self._assignment.next[partition])
        try:
            self.consumer.seek(target)
        except KafkaException as failure:
            if failure.args[0].code() != KafkaError._STATE:
                raise
            # Assigned a moment ago and not fetched yet: librdkafka cannot seek, but it can start there.
            self.consumer.incremental_unassign([target])
            self.consumer.incremental_assign([target])
            if self.throttled or partition in self._assignment.paused:
                self.consumer.pause([target])

    def _start(self, partition: Partition) -> None:
        self.consumer.resume(_named([partition]))
        self.seek(partition)  # librdkafka may have dropped what it had fetched before the pause


def _named(partitions: Iterable[Partition]) -> list[TopicPartition]:
    return [TopicPartition(partition.topic, partition.index) for partition in partitions]
