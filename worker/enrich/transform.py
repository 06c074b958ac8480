"""One record of the ingest topic becomes one record of the output topic, or a reason why not. No I/O.

What is done to an event, in order: it is checked, dropped if its flag is not tracked, given the fields it lacks, and
freed of line breaks, so that its text is a JSON line. An event that needs nothing comes out as the very bytes that
came in; fields that are not there are spliced in before the closing brace; only an event with a field that must
*change*, or with line breaks, is taken apart and put together again, every untouched part as the text it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from msgspec import UNSET, Raw

from worker.enrich.variations import Variations
from worker.events import (
    DECODE_ERRORS,
    MISSING_VALUE,
    TRACKING,
    Dead,
    Event,
    decode_unchecked,
    invalid_utf8,
    rejection,
)
from worker.flags import Flag, FlagSet

__all__ = ["Dead", "Drop", "Transform"]


@dataclass(frozen=True, slots=True)
class Drop:
    """An event that is not exported, by somebody's decision. `reason` is a metric label."""

    reason: Literal["untracked"]


UNTRACKED: Final = Drop("untracked")

DEFAULT_SOURCE: Final = "PROVIDER_CACHE"
"""What GO Feature Flag's relay writes where a provider sends no source."""

SDK_DEFAULT: Final = "SdkDefault"
"""The variation of an evaluation that fell back to the caller's default value; never a configured one."""

LARGEST_SECOND: Final = 9_999_999_999
"""The last date, in November 2286, that has ten digits in seconds; what is longer counts in finer units."""

_LINE_FEED, _CARRIAGE_RETURN = b"\n\r"
_USER: Final = b'"user"'
_PREFIX: Final = {name: b',"%s":' % name.encode() for name in Event.__struct_fields__}

_encode: Final = msgspec.json.encode
_split: Final = msgspec.json.Decoder(dict[str, Raw]).decode


class _Known:
    """A flag of the flag set, prepared for the hot path."""

    __slots__ = ("disabled", "untracked", "variations", "version")

    def __init__(self, flag: Flag) -> None:
        self.untracked = not flag.track
        self.disabled = flag.disabled
        self.version = flag.version
        self.variations = Variations(flag.variations)


# An event of an unknown flag is exported. What applies to its variation and version is what applies to a disabled one.
_UNKNOWN: Final = _Known(Flag(track=True, disabled=True, version="", variations={}))


class Transform:
    """Call it with a record's value; the answer is the output record's value, a `Drop` or a `Dead`. It never raises.

    `metadata` is added to the metadata of every feature event, key by key, where the event has no such key.

    Calls come from one thread. `flags` may be set from any thread at any time: each call sees one whole flag set.
    `unresolved` counts the variations that were asked for and not found; whoever reports it sets it back to 0.
    """

    def __init__(
        self, flags: FlagSet, default_source: str = DEFAULT_SOURCE, metadata: Mapping[str, object] | None = None
    ) -> None:
        self.unresolved = 0
        self.flags = flags
        self._source = _encode(default_source)
        self._metadata = {name: Raw(_encode(value)) for name, value in (metadata or {}).items()}

    @property
    def flags(self) -> FlagSet:
        return self._flags

    @flags.setter
    def flags(self, flags: FlagSet) -> None:
        self._known = {name: _Known(flag) for name, flag in flags.items()}
        self._flags = flags

    def __call__(self, value: bytes | None) -> bytes | Drop | Dead:
        # Every event passes here, and may cost a quarter of its decoding: measure before you add a line.
        try:
            event = decode_unchecked(value)  # type: ignore[arg-type]
        except DECODE_ERRORS as error:
            return rejection(value, error)
        assert value is not None
        if not value.isascii() and (dead := invalid_utf8(value)):
            return dead

        wanted: dict[str, bytes] = {}  # the fields to add or to replace, as JSON text
        if not event.contextKind:
            wanted["contextKind"] = _USER
        if event.creationDate > LARGEST_SECOND:
            wanted["creationDate"] = (b"%d" % event.creationDate)[:10]
        if event.kind != TRACKING:
            if event.value is UNSET:
                return MISSING_VALUE
            known = self._known.get(event.key, _UNKNOWN)
            if known.untracked:
                return UNTRACKED
            if not event.variation and (name := self._variation(event, known)) != event.variation:
                wanted["variation"] = _encode(name)
            if event.default is not False and event.default is not True:
                wanted["default"] = b"false"
            # A version 0 is a number, and no missing version.
            if not event.version and event.version != known.version and event.version != 0:
                wanted["version"] = _encode(known.version)
            if not event.source:
                wanted["source"] = self._source
            if self._metadata and (metadata := self._merged_metadata(value, event)):
                wanted["metadata"] = metadata

        if wanted or _LINE_FEED in value or _CARRIAGE_RETURN in value:
            return _write(value, event, wanted)
        return value.strip()

    def _variation(self, event: Event, known: _Known) -> str:
        if event.default is True or known.disabled:
            return SDK_DEFAULT
        name = known.variations.name_of(bytes(event.value))  # type: ignore[arg-type]
        if not name:
            self.unresolved += 1
        return name

    def _merged_metadata(self, value: bytes, event: Event) -> bytes | None:
        """The event's metadata with what it lacks of ours; None if that is nothing."""
        own: dict[str, Raw] = {}
        if event.metadata:
            own = _split(_split(value)["metadata"])
        if self._metadata.keys() <= own.keys():
            return None
        return _encode(own | {name: text for name, text in self._metadata.items() if name not in own})


def _write(value: bytes, event: Event, wanted: dict[str, bytes]) -> bytes | Dead:
    """The event's text on one line and with the `wanted` fields."""
    try:
        if _LINE_FEED in value or _CARRIAGE_RETURN in value:
            value = msgspec.json.format(value, indent=-1)  # works on the text: numbers and escapes stay
        added = b""
        for name, text in wanted.items():
            if getattr(event, name) is not UNSET:
                return _encode(_split(value) | {name: Raw(text) for name, text in wanted.items()})
            added += _PREFIX[name] + text
        return value.strip()[:-1] + added + b"}"
    except RecursionError as error:
        return rejection(value, error)
