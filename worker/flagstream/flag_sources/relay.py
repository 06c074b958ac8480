"""Flags from a GO Feature Flag relay, as its in-process providers read them: POST /v1/flag/configuration."""

import json
from collections.abc import Mapping
from typing import Final

import msgspec

from flagstream.config.flags import RelayFlagSettings
from flagstream.flag_sources.document import Document
from flagstream.flag_sources.web import WebClient
from flagstream.flags import FlagFileError

PATH = "/v1/flag/configuration"

_BESIDE_FLAGS: Final = {"evaluationContextEnrichment"}
"""Other members of an answer. A relay without flags leaves `flags` out, as Go's omitempty does."""
_LONGEST_ERROR: Final = 200

_split: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode  # raw: a number stays the text that it is


class RelayLocation:
    """Implements `FlagLocation` for a relay. With several flag sets in the relay the key chooses the set."""

    def __init__(self, settings: RelayFlagSettings) -> None:
        self._shown = settings.place()
        headers = {"Content-Type": "application/json"}
        if settings.api_key is not None:
            headers["X-API-Key"] = settings.api_key.get_secret_value()
        url = settings.url.get_secret_value().rstrip("/") + PATH
        self._client = WebClient("POST", url, self._shown, headers, settings.timeout, settings.max_bytes)
        self._body = json.dumps({"flags": settings.flags}).encode()
        self._validators: Mapping[str, str] = {}

    def fetch(self, *, unconditional: bool) -> Document | None:
        answer = self._client.ask({} if unconditional else self._validators, self._body)
        if answer is None:
            return None
        try:
            flags = _flags(answer.content)
        except (ValueError, RecursionError) as error:
            raise FlagFileError(f"{self._shown}: not the answer of a relay: {error}") from None
        self._validators = answer.validators
        return Document(flags, "json")


def _flags(content: bytes) -> bytes:
    """Return the flags in an answer. Raises ValueError for an answer of something else, and for a relay's
    error.
    """
    answer = _split(content)
    if said := [
        f"{name} {bytes(answer[name]).decode()}" for name in ("errorCode", "errorDetails") if name in answer
    ]:
        raise ValueError(f"it reports {', '.join(said)[:_LONGEST_ERROR]}")
    flags = bytes(answer.get("flags", b"{}"))
    if flags == b"null":
        flags = b"{}"
    others = answer.keys() - _BESIDE_FLAGS - {"flags"}
    if flags == b"{}" and others:
        raise ValueError(f"it has no flags, but {', '.join(sorted(others))[:_LONGEST_ERROR]}")
    return flags
