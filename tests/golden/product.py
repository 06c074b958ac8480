"""The few public names of the worker that the golden fixtures are made with, of any version of it.

This module imports nothing of the worker, so that an older version can be observed by it too.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Product:
    """One version's names. `tests/golden/today.py` has those of this checkout, `make.py` those of the old."""

    version: str
    Partition: Any
    OffsetRange: Any
    Manifest: Any
    ContentDigest: Any
    manifest_json: Any
    parse_manifest: Any
    Committed: Any
    Plan: Any
    Division: Any
    GroupStart: Any
    MetadataUnreadable: Any
    dead_letter: Any
    fit: Any
    SINKS: Any
    build: Any
    LogSink: Any
    WebhookSink: Any
