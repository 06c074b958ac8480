"""Where a sink puts its objects, by the configuration alone: within what names are unique, and how long they
may be.
"""

from dataclasses import dataclass, replace

SHOWN = 40
"""Characters of a name that is too long, for people."""


@dataclass(frozen=True, slots=True)
class NameLimits:
    """The place of a sink's objects, and the longest names that it takes.

    A name that is too long can never be stored. Whether an event therefore becomes a dead letter must not
    depend on the worker, so these limits come from nothing that two workers could find differently.
    """

    store: str = ""
    """Within what a whole name (``root`` and what follows) is unique: a bucket, a file system. If it is
    empty, that is unknown, and no other sink is compared.
    """
    root: str = ""
    """The beginning of all names, in its one normal form."""
    before: int = 0
    """Bytes before a name that count as part of it."""
    longest: int = 1 << 62
    """Most bytes (UTF-8) of a name, ``before`` included."""
    longest_part: int = 1 << 62
    """Most bytes between two slashes."""

    def limited(self, longest: int, part: int) -> "NameLimits":
        """Return the same place with these limits, if they are narrower."""
        return replace(self, longest=min(self.longest, longest), longest_part=min(self.longest_part, part))

    def fault(self, name: str) -> str | None:
        """Return what is too long about ``name``, for people; None if it can be stored."""
        size = self.before + len(name.encode())
        if size > self.longest:
            return f'"{_cut(name)}" has {size} bytes with its place, and {self.longest} is the most'
        for part in name.split("/"):
            size = len(part.encode())
            if size > self.longest_part:
                return f'"{_cut(part)}" has {size} bytes, and {self.longest_part} is the most between slashes'
        return None


def bucket(store: str, prefix: str) -> NameLimits:
    """Return the limits in a bucket of S3 or Google Cloud Storage: a key has at most 1,024 bytes of UTF-8,
    whatever its slashes (both stores' quotas).
    """
    return NameLimits(store, prefix, len(prefix.encode()), 1024)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
