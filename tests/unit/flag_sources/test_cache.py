"""The cache keeps the flags of an earlier run on disk."""

import errno
import os
from pathlib import Path

import pytest

from flagstream.flag_sources.cache import FlagCache
from flagstream.flag_sources.document import Document

FLAGS = {"flags.yaml": Document(b"a: {}", "yaml")}


def fails(code: int) -> None:
    raise OSError(code, os.strerror(code))


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_cannot_sync_keeps_flags(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut takes of a cache is written again."""
    monkeypatch.setattr("os.fsync", lambda descriptor: fails(code))
    cache = FlagCache(tmp_path / "flags.cache")
    cache.write(FLAGS)
    assert {name: found.content for name, found in cache.read().items()} == {"flags.yaml": b"a: {}"}


@pytest.mark.parametrize(
    ("function", "call"), [("fsync", "fsync"), ("replace", "rename"), ("mkdir", "mkdir")]
)
def test_an_error_names_file_and_call(
    function: str, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is the one that people know; the temporary one is gone."""
    (tmp_path / "kept").mkdir()
    file = tmp_path / ("new" if call == "mkdir" else "kept") / "flags.cache"
    monkeypatch.setattr(f"os.{function}", lambda *_, **__: fails(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left") as raised:
        FlagCache(file).write(FLAGS)
    assert str(raised.value) == f"{file}: No space left on device ({call})"
    assert list((tmp_path / "kept").iterdir()) == []


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    """A pipe is not waited for, and a device not replaced by a file."""
    pipe = tmp_path / "flags.cache"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="is not a regular file"):
        FlagCache(pipe).read()
    with pytest.raises(OSError, match="is not a regular file"):
        FlagCache(pipe).write(FLAGS)
    assert pipe.is_fifo()
