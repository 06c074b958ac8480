"""Files of the file sink, read by their documentation (docs/sinks/file.md) and by RFC 1952."""

import gzip
import hashlib
import json
import re
import zlib
from pathlib import Path
from typing import Any, NamedTuple

_NAME = re.compile(r"(\d{19})-(\d{19})\.jsonl\.gz")


class Content(NamedTuple):
    """What is in a file: its lines, their digest, and what its header says of it."""

    lines: list[bytes]
    digest: str
    manifest: dict[str, Any]


class ArchivedFile(NamedTuple):
    """A file, and the range that its name gives it."""

    start: int
    end: int
    path: Path

    def read(self) -> Content:
        """Raises ValueError when it is no whole gzip file of lines with a manifest."""
        data = self.path.read_bytes()
        try:
            lines = gzip.decompress(data).split(b"\n")
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(str(error)) from error
        if lines.pop() != b"":
            raise ValueError("the last line is cut off")
        digest = hashlib.sha256()
        for line in lines:
            digest.update(len(line).to_bytes(4, "big") + line)
        return Content(lines, digest.hexdigest(), _manifest(data))


def listing(folder: Path) -> list[ArchivedFile]:
    """The files of a partition in order of their ranges. Raises ValueError for a name that gives no range."""
    files = []
    for path in folder.iterdir():
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise ValueError(f"{path} is not named by a range")
        files.append(ArchivedFile(int(match[1]), int(match[2]), path))
    return sorted(files)


def _manifest(data: bytes) -> dict[str, Any]:
    """JSON in the subfield FS of the gzip header's extra field."""
    if not data[3] & 4:
        raise ValueError("the gzip header has no extra field")
    extra = data[12 : 12 + int.from_bytes(data[10:12], "little")]
    while len(extra) >= 4:
        length = int.from_bytes(extra[2:4], "little")
        if extra[:2] == b"FS":
            return dict(json.loads(extra[4 : 4 + length]))
        extra = extra[4 + length :]
    raise ValueError("the gzip header has no subfield FS")
