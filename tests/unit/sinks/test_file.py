"""What errors of the file system mean."""

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from flagstream.chunk import Partition
from flagstream.errors import SinkRefused, SinkUnavailable
from flagstream.formats.protocol import EncodedObject
from flagstream.sinks.objects.file import FileStore, failure
from flagstream.window import Manifest, OffsetRange


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


# ── file systems that cannot do all ──────────────────────────────────────────────────────────────────────

MANIFEST = Manifest(OffsetRange(Partition("evaluations", 0), 0, 1), 1, "ab" * 32, "config")
CONTENT = EncodedObject((b"{}",), MANIFEST)
ANY: Any = None


def sync_fails(monkeypatch: pytest.MonkeyPatch, code: int, *, folders: bool) -> None:
    """`fsync` of folders, or of files, answers `code`."""
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == folders:
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", failing)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF])
def test_folders_that_cannot_be_synced(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FUSE, 9p and CIFS: files are stored all the same; the log and ``flagstream check`` say what is lost."""
    sync_fails(monkeypatch, code, folders=True)
    store = FileStore(tmp_path / "archive")
    with capture_logs() as lines:
        store.open()
    assert store.create("a/b/c.jsonl", CONTENT, ANY)

    [line] = lines
    assert (line["event"], line["log_level"]) == ("folders_not_synced", "warning")
    assert line["error"] == f"{tmp_path / 'archive'}: {os.strerror(code)} (fsync of the folder)"
    assert "files that were written shortly before can be missing" in line["lost"]
    proof = next(iter(store.probe()))
    assert proof.outcome == "proved"
    assert "can be missing" in proof.detail


def test_folders_that_fail_to_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An I/O error is one: nothing counts as stored."""
    sync_fails(monkeypatch, errno.EIO, folders=True)
    with pytest.raises(SinkUnavailable, match=r"Input/output error \(fsync of the folder\)"):
        FileStore(tmp_path / "archive").open()


@pytest.mark.parametrize("call", ["fsync", "link", "mkdir"])
def test_an_error_names_the_call(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk can show in any of them; the path is the one that people know."""
    store = FileStore(tmp_path)
    store.open()
    if call == "fsync":
        sync_fails(monkeypatch, errno.ENOSPC, folders=False)
    else:

        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(f"os.{call}", full)
    with pytest.raises(SinkUnavailable) as raised:
        store.create("a/b.jsonl", CONTENT, ANY)
    assert str(raised.value) == f"{tmp_path / 'a/b.jsonl'}: No space left on device ({call})"


@pytest.mark.parametrize(("code", "denied"), [("EACCES", True), ("EROFS", True), ("ENAMETOOLONG", False)])
def test_rights_that_may_come_back(code: str, denied: bool) -> None:
    """A missing right or a read-only mount has to last before it makes dead letters."""
    refused = failure(OSError(getattr(errno, code), "no", "/data/x"), Path("/data"))
    assert isinstance(refused, SinkRefused)
    assert refused.denied is denied
