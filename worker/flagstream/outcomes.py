"""What becomes of one record, and of one thing that ``flagstream check`` tries: values, not exceptions.

``Drop`` and ``Dead`` come from the enrich stage and from whoever decodes a topic's records, ``Reject`` from
the encoder of a sink or a format, and ``Proof`` from a probe.
"""

from dataclasses import dataclass
from typing import Literal

DeadReason = Literal[
    "tombstone",
    "empty",
    "invalid_json",
    "not_an_object",
    "missing_field",
    "wrong_type",
    "out_of_range",
    "too_deep",
    "too_large",
    "invalid_headers",
    "unknown_schema",
    "invalid_avro",
    "refused_by_topic",
]
"""Why a record is a dead letter. It becomes a header and a metric label, so the words never change.
`too_large` and `refused_by_topic` are for records that the topic refuses, `invalid_headers` for records whose
headers the client cannot read, `unknown_schema` and `invalid_avro` for topics in Avro. The decoder of events
never gives these five."""


@dataclass(frozen=True, slots=True)
class Drop:
    """An event that is not exported, because somebody decided so. `reason` is a metric label."""

    reason: Literal["untracked"]


@dataclass(frozen=True, slots=True)
class Dead:
    """A record that cannot be processed. `error` says for people what is wrong, and names the field if the
    mistake is in one."""

    reason: DeadReason
    error: str


@dataclass(frozen=True, slots=True)
class Reject:
    """A single record that the format cannot hold. It becomes a dead letter of this sink, and the rest of the
    window goes on.

    ``index`` is the record's place in the call of ``add`` that rejected it; ``reason`` is a short machine
    word (a metric label), ``error`` the text for people.
    """

    index: int
    reason: str
    error: str


@dataclass(frozen=True, slots=True)
class Proof:
    """Describes one thing that ``flagstream check`` tried: ``what`` it was ("write", "list" …), and the
    result."""

    what: str
    outcome: Literal["proved", "failed", "unproved"]
    detail: str = ""
