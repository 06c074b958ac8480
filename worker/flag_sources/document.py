"""What a place holds, and how its format is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from worker.flags import FlagFormat

FORMATS: Final[Mapping[str, FlagFormat]] = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".toml": "toml"}
"""Formats by the suffix of a name; any other name is YAML, GO Feature Flag's default."""

# RFC 8259, RFC 9512 and what servers sent before it, IANA's registration of TOML
_MEDIA_TYPES: Final[Mapping[str, FlagFormat]] = {
    "application/json": "json",
    "text/json": "json",
    "application/yaml": "yaml",
    "application/x-yaml": "yaml",
    "text/yaml": "yaml",
    "text/x-yaml": "yaml",
    "application/toml": "toml",
}


@dataclass(frozen=True, slots=True)
class Document:
    """The bytes of a flag file, and how they are to be read."""

    content: bytes
    format: FlagFormat


def told_format(given: FlagFormat | None, content_type: str | None, name: str) -> FlagFormat:
    """The format: as it is ``given``, else by content type, else by the suffix of ``name``, else YAML. A type
    that says nothing, such as text/plain, is passed over."""
    media_type = (content_type or "").partition(";")[0].strip().lower()
    by_type = "json" if media_type.endswith("+json") else _MEDIA_TYPES.get(media_type)
    return given or by_type or FORMATS.get(PurePosixPath(name).suffix.lower(), "yaml")
