"""What stored bytes mean, for libraries of other versions than those that the fixtures were made with."""

import gzip
import io
import json
import re
import zlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import fastavro
import pyarrow.parquet
import zstandard

HERE = Path(__file__).parent
_LIBRARIES = ("backports.zstd", "cramjam", "fastavro", "pyarrow")
"""Those that decide which bytes an object of the same content has, beside zlib."""
_SKIPPABLE = b"\x50\x2a\x4d\x18"


def same_libraries() -> bool:
    """Whether the installed libraries are those of constraints.txt, so that bytes have to be equal too."""
    pins = dict(
        re.findall(r"^([\w.-]+)==(\S+)$", (HERE.parents[1] / "constraints.txt").read_text(), re.MULTILINE)
    )
    made_with = json.loads((HERE / "data/made_with.json").read_text())
    try:
        installed = all(version(name) == pins[name] for name in _LIBRARIES)
    except PackageNotFoundError:
        return False
    return bool(installed and made_with["zlib"] == zlib.ZLIB_RUNTIME_VERSION)


def decoded(name: str, content: bytes) -> Any:
    """The content of the object `name`, with all that it says of itself, without what a library decides."""
    match name.rpartition(".")[2]:
        case "gz":
            # the header with the manifest, and the text
            return [_gzip_extra(content), gzip.decompress(content)]
        case "zst":
            # the text, and the frame with the manifest after it
            at = content.rfind(_SKIPPABLE)
            frame, said = (content, b"") if at < 0 else (content[:at], content[at:])
            return [zstandard.ZstdDecompressor().decompressobj().decompress(frame), said]
        case "avro":
            reader = fastavro.reader(io.BytesIO(content))
            return [dict(reader.metadata), list(reader)]
        case "parquet":
            file = pyarrow.parquet.ParquetFile(io.BytesIO(content))
            columns = file.metadata.row_group(0)
            compressions = [columns.column(at).compression for at in range(columns.num_columns)]
            return [str(file.schema_arrow), file.schema_arrow.metadata, compressions, file.read().to_pylist()]
    return content


def _gzip_extra(content: bytes) -> bytes:
    """The first bytes of a gzip member, to the end of the extra field if there is one."""
    if not content[3] & 4:
        return content[:3]
    return content[: 12 + int.from_bytes(content[10:12], "little")]
