"""Exceptions, named by what the caller has to do. Every error that the package raises on purpose is here.

If a class is in another module, the module follows its text. ::

    FlagstreamError
    ├── ConfigError        a person must correct the configuration; lists every problem; exit code 2
    ├── UnusableSink       a sink of another distribution cannot be used (sinks.registry)
    ├── SinkError
    │   ├── SinkRefused      credentials, bucket, 4xx: back off for ever, a person must act
    │   │   ├── PartRefused      one request is refused, perhaps for one event in it: a smaller one may pass
    │   │   ├── SinkRefusesAll   every single event is refused: it is the sink, so nothing is dead-lettered
    │   │   └── RangesRefused    some events of a window are refused, and the sink has taken the others
    │   └── SinkUnavailable  time-out, 5xx, 429 (``retry_after``): back off with jitter, it passes by itself
    │       └── AnswerTooLarge   larger than any answer of a store (sinks.objects.bounded_answers)
    ├── PartitionStopped   export no further from this partition until a person has acted
    │   ├── ObjectConflict       other content stands under our name
    │   ├── RecordsMissing       records of a planned range are gone from the topic
    │   └── MetadataUnreadable   a newer worker wrote the committed offset's metadata (kafka.commit_metadata)
    ├── OwnershipLost      the partition moved on: drop the work, no harm done
    ├── StartAgain         read a partition again from the committed or another offset (export.restarts)
    ├── UnknownTransition  an event that the table of phases does not have: the process stops (export.phases)
    ├── TransactionAborted the open transaction was rolled back: rewind to the committed offsets
    │   ├── TransactionUncertain  the transaction may have been committed: ask for the committed offsets
    │   ├── TransactionRefused    one of its records was refused (kafka.transaction_errors)
    │   └── RecordTooLarge        the topic takes smaller records than it said (kafka.transaction_errors)
    ├── NotQueued          the open transaction takes no record any more: abort it (kafka.transaction_errors)
    │   └── QueueFull        the client's queue is full: hand the rest in later (kafka.transaction_errors)
    ├── TopicRefusesAll    no record is at fault more than any other (kafka.refusals)
    ├── Hangs              a call of librdkafka did not return within its bound (kafka.transaction_calls)
    ├── TopicsNotReady     brokers do not answer, or a topic is missing: ask again (kafka.topics)
    ├── NotTold            the brokers do not say who filled the output topic (kafka.earlier_output)
    ├── RegistryError      the schema registry does not answer, or refuses (topic_formats.registry)
    ├── SchemaMissing      the schema registry has no such schema (topic_formats.registry)
    ├── NotAvro            a text is not the Avro schema of a record (formats.avro_schemas)
    ├── TaskEnded          a task that has to last has ended: the process stops (operate.tasks)
    ├── HttpError          a request has no answer; the text is fit for a log (http.failures)
    │   ├── HttpRefused      a certificate, an address, a header, a proxy: a person must act (http.failures)
    │   ├── HttpUnavailable  no connection, no answer in time, a broken one: it passes (http.failures)
    │   └── TooLarge         the answer is larger than the caller takes (http.failures)
    ├── FlagFileError      a flag file cannot be understood: the flags read before stay in use (flag_files)
    ├── NotNow             the place of flags asks to be left alone for some seconds (flag_sources)
    ├── NoFolder           the demo cannot use its folder (demo)
    ├── SeaweedMissing     the demo's S3 server cannot start (demo.seaweed)
    └── Fatal              the process cannot go on; carries the exit code for the supervisor
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the process; a supervisor may back off differently for each (documented in
    docs/operations.md).
    """

    OK = 0
    UNEXPECTED = 1
    CONFIG = 2
    FENCED = 3
    """Another live process uses our transactional.id or group.instance.id, or a transaction outlived its
    time-out.
    """
    KAFKA = 4
    """librdkafka reported an error it cannot recover from."""
    STUCK = 5
    """A call to Kafka did not return within its bound; the watchdog ended the process."""


class FlagstreamError(Exception):
    """Root of all errors that the worker raises on purpose."""


class ConfigError(FlagstreamError):
    """The configuration is wrong. ``problems`` holds one line for each mistake, with its path and what would
    be right.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class SinkError(FlagstreamError):
    """A delivery did not succeed; the window stays planned and is delivered again."""


class SinkRefused(SinkError):
    """The sink refuses the window until a person acts: credentials, permissions, a bucket that is gone.

    ``accepted``: the offset up to which the sink has accepted the window all the same. Records before it do
    not become dead letters, except those that its encoder rejected.

    ``denied``: the sink refused access and has not judged the content (credentials, rights, a missing bucket,
    a certificate). People take such things away and give them back, so the engine reports it at once, and
    counts it as a refusal only after ``refused_after``. A sink that raises it has asked with a new client, or
    does so at its next call.

    ``events``: if a sink accepted the whole window except some events, their offsets, each with the reason.
    Only they become dead letters, and ``accepted`` has no meaning.

    ``repeated``: the sink sent the content twice within this try, and the first request may have been
    accepted without an answer.
    """

    def __init__(
        self,
        message: str,
        accepted: int = 0,
        *,
        denied: bool = False,
        events: Mapping[int, str] | None = None,
        repeated: bool = False,
    ) -> None:
        self.accepted = accepted
        self.denied = denied
        self.events = events
        self.repeated = repeated
        super().__init__(message)

    def reason(self, offset: int) -> str | None:
        """Return why the event at ``offset`` of the window is refused; None if the sink has accepted it."""
        if self.events is not None:
            return self.events.get(offset)
        return str(self) if offset >= self.accepted else None

    def taken_until(self, start: int, end: int) -> int:
        """Return where the range of the window after ``[start, end)`` begins: events that were refused at the
        end of this one were exported nowhere.
        """
        return end if self.events is not None else max(start, self.accepted)


class PartRefused(SinkRefused):
    """The sink refuses one part of a window (:class:`flagstream.sinks.protocol.PartsSink`), perhaps for one
    event in it or for its size. ``code`` is the sink's word for the refusal, of at most 16 characters.
    """

    def __init__(self, message: str, code: str, *, denied: bool = False, repeated: bool = False) -> None:
        self.code = code
        super().__init__(message, denied=denied, repeated=repeated)


class SinkRefusesAll(SinkRefused):
    """The sink refuses every request, even one with a single event: that says nothing about an event. The
    engine reports it and tries again, and nothing becomes a dead letter.
    """

    AFTER = 8
    """So many single events in a row must be refused, and nothing accepted, before the sink is to blame."""


class RangesRefused(SinkRefused):
    """Of a window that was delivered in parts, ``ranges`` were refused: ``(start, end, why)``, in order and
    without overlap. The sink has accepted the rest, up to ``until`` if that is not the window's end.
    """

    def __init__(
        self, message: str, ranges: Sequence[tuple[int, int, str]], until: int | None = None
    ) -> None:
        self.ranges = ranges
        self.until = until
        super().__init__(message)

    def reason(self, offset: int) -> str | None:
        index = bisect_right(self.ranges, offset, key=lambda one: one[0]) - 1
        if index < 0 or offset >= self.ranges[index][1]:
            return None
        return self.ranges[index][2]

    def taken_until(self, start: int, end: int) -> int:
        for first, last, _ in reversed(self.ranges):
            if last != end:
                break
            end = first
        return max(start, end)


class SinkUnavailable(SinkError):
    """The sink cannot accept the window now. ``retry_after``: seconds that the sink asked us to wait, if it
    did. ``unanswered``: the request may have been accepted all the same; it is False only if it certainly was
    not.
    """

    def __init__(self, message: str, retry_after: float | None = None, *, unanswered: bool = True) -> None:
        self.retry_after = retry_after
        self.unanswered = unanswered
        super().__init__(message)


class PartitionStopped(FlagstreamError):
    """Exporting from this partition would lose or double events. The message says why, and
    names the ways out.

    ``look_again``: seconds after which the partition begins again by itself, if the reason may pass.
    """

    def __init__(self, message: str, look_again: float | None = None) -> None:
        self.look_again = look_again
        super().__init__(message)


class ObjectConflict(PartitionStopped):
    """An object with our name holds something else. It is never overwritten."""


class RecordsMissing(PartitionStopped):
    """Records that were planned, or committed to be exported next, are no longer in the topic."""


class OwnershipLost(FlagstreamError):
    """The partition is no longer held in the epoch that the work belongs to."""


class TransactionAborted(FlagstreamError):
    """The open transaction was aborted; its records are invisible and its offsets are not committed."""


class TransactionUncertain(TransactionAborted):
    """The transaction has ended, but it is not known whether it was committed. The committed offsets show
    it.
    """


class Fatal(FlagstreamError):
    """An error that nothing in this process can mend. ``code`` becomes the exit code."""

    def __init__(self, code: ExitCode, message: str) -> None:
        self.code = code
        super().__init__(message)
