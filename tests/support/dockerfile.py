"""A Dockerfile as its stages and instructions, and what of a folder a build of it would see."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import translate
from pathlib import Path


@dataclass
class Stage:
    """``base`` as it is written; ``instructions`` in order, each a word and the rest of its lines."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        """What follows each ``word``."""
        return [rest for found, rest in self.instructions if found == word]


def stages(text: str) -> tuple[dict[str, str], list[Stage]]:
    """Return the arguments before the first stage with their defaults, and the stages."""
    arguments: dict[str, str] = {}
    found: list[Stage] = []
    for word, rest in _instructions(text):
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(base.strip(), name.strip()))
        elif not found:
            assert word == "ARG", word
            name, _, default = rest.partition("=")
            arguments[name] = default
        else:
            found[-1].instructions.append((word, rest))
    return arguments, found


def assignments(rest: str) -> dict[str, str]:
    """The names and values of an ENV or LABEL."""
    return {
        name: value.strip('"')
        for name, value in re.findall(r'([\w.]+)=("[^"]*"|\S*)', rest.replace("\\\n", " "))
    }


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    for line in whole.splitlines():
        word, _, rest = line.strip().partition(" ")
        yield word.upper(), rest.strip()


def copy_context(source: Path, ignore: str, target: Path, files: list[Path]) -> None:
    """Copy those of ``files`` below ``source`` that ``ignore``, a .dockerignore, lets into the context."""
    rules = [
        (not line.startswith("!"), _pattern(line.removeprefix("!").strip("/")))
        for line in ignore.splitlines()
        if line.strip() and not line.startswith("#")
    ]
    for path in files:
        name = path.relative_to(source)
        ignored = False
        for excludes, pattern in rules:
            # A rule about a folder is one about all that is in it.
            if any(pattern.fullmatch(str(each)) for each in (name, *name.parents)):
                ignored = excludes
        if not ignored:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target / name)


def _pattern(text: str) -> re.Pattern[str]:
    # In Docker's patterns * ends at a slash, and **/ is any number of folders.
    parts = [
        r"(?:.*/)?" if part == "**" else translate(part)[:-2].replace(".*", "[^/]*")
        for part in text.split("/")
    ]
    return re.compile("/".join(parts).replace("(?:.*/)?/", "(?:.*/)?"))
