"""The settings that every sink has; each sink adds its own in a subclass."""

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from flagstream.units import MIB, Bytes, Count, Seconds, Start


class SinkSettings(BaseModel):
    """Settings of all sinks: where to start, when a window closes, what to do when a sink cannot go on.

    A sink's subclass adds ``type: Literal["<type>"]`` and its own fields. Each field has a description with
    unit and reason, from which the reference is printed. A check of one field is a pydantic validator that
    raises ``units.wrong(...)``; a check of several fields belongs in ``problems``. Secrets are ``SecretStr``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    type: str = Field(description="Which sink this is; decides what else can be set here.")
    start: Start = Field(
        default="beginning",
        description=(
            "Where to begin with a partition that this sink has no offset for. A sink added later exports "
            "the history that the output topic still holds, unless it starts at the latest record or at a "
            "time."
        ),
    )
    max_events: Count = Field(
        default=100_000, gt=0, le=100_000_000, description="A window closes when it holds this many events."
    )
    max_bytes: Bytes = Field(
        default=64 * MIB,
        gt=0,
        description="A window closes when its encoded, compressed output has this size, held in memory.",
    )
    events: Literal["both", "feature", "tracking"] = Field(
        default="both",
        description=(
            "Which events this sink exports: those of kind tracking, all others (feature), or both. What it "
            "leaves out stays in the output topic for other sinks."
        ),
    )
    flush_interval: Seconds = Field(
        default=60.0,
        gt=0,
        description="A window closes this long after its first record, also when no further record comes.",
    )
    on_refused: Literal["retry", "dead_letter"] = Field(
        default="retry",
        description=(
            "When the sink will not take what it is given (no permission, a bucket that is gone, an event "
            "that a receiver refuses): try again with back-off until somebody mends it, or send what it "
            "refuses to the dead letters and go on."
        ),
    )
    refused_after: Seconds = Field(
        default=300.0,
        ge=0,
        description=(
            'With on_refused = "dead_letter": how long missing credentials or rights, or a missing bucket or '
            "topic, must last before a window becomes dead letters. It is reported at once. What is refused "
            "for its content becomes dead letters without a wait."
        ),
    )
    on_missing_records: Literal["stop", "continue"] = Field(
        default="stop",
        description=(
            "When records were deleted from the output topic before they were exported: stop that partition, "
            "or count them and go on. Going on is the only way to lose an event."
        ),
    )
    on_lost_offsets: Literal["stop", "continue"] = Field(
        default="stop",
        description=(
            "When the group has no offset for a partition of which the sink already holds windows (group "
            "expired or deleted): stop that partition, or deliver the last window again, of which only what "
            "is missing is stored, and go on after it."
        ),
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield the mistakes in how fields go together: the field to blame, then what is wrong and what would
        be right.

        The configuration calls it only if all fields are acceptable by themselves.
        """
        return iter(())

    def variable_problems(self) -> Iterator[str]:
        """Yield what is wrong with the environment variables that a client library would read, without their
        values. ``flagstream config check`` calls it; a running worker lets the sink fail and say so.
        """
        return iter(())
