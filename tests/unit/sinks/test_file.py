"""What errors of the file system mean."""

import errno
import os
from pathlib import Path

import pytest

from worker.errors import SinkRefused, SinkUnavailable
from worker.sinks.file import failure


@pytest.mark.parametrize(
    "code", ["ENOSPC", "EDQUOT", "EIO", "ESTALE", "EAGAIN", "ENOENT", "ETIMEDOUT", "EBUSY"]
)
def test_passes_by_itself(code: str) -> None:
    """A full disk or a failing mount is waited for."""
    error = OSError(getattr(errno, code), os.strerror(getattr(errno, code)), "/data/x")
    translated = failure(error, Path("/data"))
    assert type(translated) is SinkUnavailable
    assert str(translated).startswith("/data/x: ")


@pytest.mark.parametrize("code", ["EACCES", "EPERM", "EROFS", "ENOTDIR", "ENAMETOOLONG", "ELOOP", "EFBIG"])
def test_needs_a_person(code: str) -> None:
    """Permissions, a read-only mount or a name that is too long are not mended by trying again."""
    error = OSError(getattr(errno, code), os.strerror(getattr(errno, code)), "/data/x")
    assert type(failure(error, Path("/data"))) is SinkRefused


@pytest.mark.parametrize("code", [errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS])
def test_no_hard_links(code: int) -> None:
    """A file system without hard links is named as the reason."""
    error = OSError(code, os.strerror(code), "/data/a", None, "/data/b")
    translated = failure(error, Path("/data"))
    assert type(translated) is SinkRefused
    assert "cannot link /data/a to /data/b" in str(translated)
    assert str(translated).endswith("path needs hard links")


def test_error_without_a_name() -> None:
    """Where the system names no file, the sink's does."""
    assert (
        str(failure(OSError(errno.EIO, "Input/output error"), Path("/data/y")))
        == "/data/y: Input/output error"
    )
