"""Sample records, as applications with different SDKs would produce them for the flags of the demo."""

import json
import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class Fate(IntEnum):
    """What the worker has to do with a record."""

    EXPORT = 1
    DROP = 2
    DEAD = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """Holds a record for the ingest topic. ``mark`` is what enrichment must not change, see :func:`mark`."""

    key: bytes
    value: bytes
    fate: Fate
    mark: int


BROKEN_EVERY = 150
"""One of so many records is broken."""
TRACKING_SHARE, UNKNOWN_SHARE = 0.05, 0.01
USERS = [f"user-{number:04d}" for number in range(1, 501)]

_MISSING_BY_SDK = {
    "relay": (),
    "java": ("source", "contextKind"),
    "python": ("version", "metadata"),
    "web": ("variation", "version"),
    "edge": ("variation", "source", "default", "contextKind", "metadata"),
}
"""What each SDK leaves out, for the worker to fill in. The sets are invented; that SDKs differ is true."""
_SOURCE = {"relay": "SERVER", "python": "INPROCESS", "web": "PROVIDER_CACHE"}


class Samples:
    """Makes records for ``flags``, a parsed flag file of GO Feature Flag."""

    def __init__(self, flags: Mapping[str, Any], chance: random.Random) -> None:
        self._flags = flags
        self._chance = chance

    def make(self, sequence: int, now: float) -> Sample:
        """The next record, made at ``now`` (seconds since the epoch). Each but a broken one carries
        ``sequence``, in a field that the worker does not know.
        """
        user = self._chance.choice(USERS)
        if sequence % BROKEN_EVERY == BROKEN_EVERY - 1:
            return Sample(user.encode(), self._broken(sequence), Fate.DEAD, 0)
        if self._chance.random() < TRACKING_SHARE:
            event, tracked = self._tracking(user, now), True
        else:
            event, tracked = self._evaluation(user, now)
        event["sequence"] = sequence
        value = json.dumps(event, separators=(",", ":")).encode()
        return Sample(user.encode(), value, Fate.EXPORT if tracked else Fate.DROP, mark(event))

    def _evaluation(self, user: str, now: float) -> tuple[dict[str, Any], bool]:
        sdk = self._chance.choice(list(_MISSING_BY_SDK))
        event: dict[str, Any] = {
            "kind": "feature",
            "contextKind": "user",
            "userKey": user,
            # some SDKs send milliseconds
            "creationDate": int(now * 1000) if sdk == "web" else int(now),
        }
        flag = None
        if self._chance.random() < UNKNOWN_SHARE:  # a flag that was deleted, but is still asked for
            event |= {"key": "retired-banner", "variation": "SdkDefault", "value": False, "default": True}
        else:
            name, flag = self._chance.choice(list(self._flags.items()))
            variation, value = self._chance.choice(list(flag["variations"].items()))
            failed = flag.get("disable", False)
            event |= {"key": name, "variation": "SdkDefault" if failed else variation}
            event |= {"value": value, "default": failed, "version": flag.get("version", "")}
        event |= {"source": _SOURCE.get(sdk, ""), "metadata": {"sdk": sdk}}
        for missing in _MISSING_BY_SDK[sdk]:
            event.pop(missing, None)
        return event, flag is None or flag.get("trackEvents", True)

    def _tracking(self, user: str, now: float) -> dict[str, Any]:
        return {
            "kind": "tracking",
            "userKey": user,
            "creationDate": int(now),
            "key": self._chance.choice(["order-placed", "signed-up"]),
            "evaluationContext": {"locale": self._chance.choice(["en", "fr", "de"])},
            "trackingEventDetails": {"value": round(self._chance.uniform(5, 90), 2), "currency": "EUR"},
        }

    def _broken(self, sequence: int) -> bytes:
        kinds = (
            b'{"kind":"feature","userKey":"user-0007","creationDate":17',
            b'{"kind":"feature","userKey":7,"creationDate":1732304730,"key":"new-checkout","value":true}',
            b'{"kind":"feature","userKey":"user-0007","creationDate":1732304730,"value":true}',
            b"new-checkout=true",
            b"",
        )
        return kinds[sequence // BROKEN_EVERY % len(kinds)]


def mark(event: Mapping[str, Any]) -> int:
    """A checksum over what is the event's own: whoever has the same one under the same sequence is that
    event.
    """
    own = [
        event.get(name) for name in ("kind", "userKey", "key", "value", "trackingEventDetails", "sequence")
    ]
    return zlib.crc32(json.dumps(own).encode())
