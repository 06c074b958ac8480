"""The document at a location, and how its format is found out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from flagstream.flags import FlagFormat

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


# Structured suffixes (RFC 6839, RFC 9512) say less of a document than the suffix of its name: GitHub serves
# every raw file as application/vnd.github.raw+json.
_STRUCTURES: Final[Mapping[str, FlagFormat]] = {"json": "json", "yaml": "yaml"}


@dataclass(frozen=True, slots=True)
class Document:
    """The bytes of a flag file, and how they are to be read."""

    content: bytes
    format: FlagFormat
    decided_by: str = field(default="", compare=False)
    """What decided the format, for people: if the format is wrong, this has to change."""


def format_of(given: FlagFormat | None, content_type: str | None, name: str) -> tuple[FlagFormat, str]:
    """Return the format, and what decided it: the one that is ``given``, else the content type, else the
    suffix of ``name``, else the content type's structure (``+json``), else YAML. A type that says nothing
    about the format, such as text/plain, is ignored.
    """
    media_type = (content_type or "").partition(";")[0].strip().lower()
    suffix = PurePosixPath(name).suffix.lower()
    structure = media_type.rpartition("+")[2]
    if given:
        return given, "by the setting format"
    if media_type in _MEDIA_TYPES:
        return _MEDIA_TYPES[media_type], f"by the content type {media_type}"
    if suffix in FORMATS:
        return FORMATS[suffix], f"by the suffix {suffix}"
    if "+" in media_type and structure in _STRUCTURES:
        return _STRUCTURES[structure], f"by the content type {media_type[:80]}"
    return "yaml", "as nothing says another"
