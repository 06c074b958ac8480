"""Reads the file, which is TOML in UTF-8, and reports what else it may be."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from flagstream.config import goff_words
from flagstream.errors import ConfigError
from flagstream.text import decoded

_EXAMPLE = "flagstream.example.toml is one to begin with"
_YAML = re.compile(r"^(?:---\s*$|- |[A-Za-z_][\w.-]*\s*:(?:\s|$))", re.MULTILINE)


def read_file(path: Path) -> dict[str, object]:
    """Return the content of the file. Raises ConfigError if it is not TOML, or is empty."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    try:
        text = decoded(content)
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is not UTF-8 text at byte {error.start}"]) from None
    text = text.replace("\r\n", "\n")
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path}: {problem}" for problem in _no_toml(text, str(error))]) from None
    except RecursionError:
        raise ConfigError([f"{path}: cannot be read as TOML: it is nested too deeply"]) from None
    except ValueError:  # of Python's own bound, in words about Python
        raise ConfigError([f"{path}: holds a number with thousands of digits; write a smaller one"]) from None
    if not raw:
        raise ConfigError(
            [f"{path}: is empty; {_EXAMPLE}. Where all settings are in the environment, name no file"]
        )
    if goff_words.is_flag_file(text) and not {"flags", "sinks", "kafka"} & raw.keys():
        raise ConfigError([f"{path}: {_FLAG_FILE}"])
    return raw


_FLAG_FILE = f"is a file of flags, not the worker's configuration; name it there as flags.path ({_EXAMPLE})"


def _no_toml(text: str, error: str) -> Iterator[str]:
    relay = list(goff_words.words_of_a_relay(text))
    if relay:
        yield (
            "is the configuration of GO Feature Flag's relay proxy, not the worker's, which is TOML; "
            f"{goff_words.GUIDE} has a table of what corresponds to what, and {_EXAMPLE}"
        )
        for word in relay:
            yield goff_words.counterpart(word, goff_words.TOP) or ""
    elif text.lstrip().startswith("{"):
        yield f"is JSON, not TOML; {_EXAMPLE}"
    elif goff_words.is_flag_file(text):
        yield _FLAG_FILE
    elif _YAML.match(_without_comments(text)):
        yield f'is YAML, not TOML; write tables as [kafka] and values as key = "text" ({_EXAMPLE})'
    else:
        yield f"is not TOML: {error}"


def _without_comments(text: str) -> str:
    """Return ``text`` without the comments and empty lines at its beginning."""
    return re.sub(r"\A(?:\s*(?:#[^\n]*)?\n)*", "", text)
