"""Where a sink puts its objects, as far as the configuration tells: what names are unique in, and how long
they may be.
"""

from dataclasses import dataclass, replace

SHOWN = 40
"""Characters of a name that is too long, for people."""


@dataclass(frozen=True, slots=True)
class NameLimits:
    """What names are put behind, and what of them is too long there.

    A name that is too long can never be stored. Whether an event becomes a dead letter by it must not depend
    on the worker, so nothing is looked up for these limits that another worker might find differently.
    """

    store: str = ""
    """Where a whole name (``root`` and what follows) is given once: a bucket, a file system. Empty: unknown,
    no other sink is compared.
    """
    root: str = ""
    """What stands in front of all names, in the one way to write it."""
    before: int = 0
    """Bytes that count in front of a name."""
    longest: int = 1 << 62
    """Bytes (UTF-8) of a name with what counts in front of it."""
    longest_part: int = 1 << 62
    """Bytes of what stands between two slashes."""

    def limited(self, longest: int, part: int) -> "NameLimits":
        """The same place with these limits, where they are narrower."""
        return replace(self, longest=min(self.longest, longest), longest_part=min(self.longest_part, part))

    def fault(self, name: str) -> str | None:
        """What is too long about ``name``, for people; None if it can be stored."""
        size = self.before + len(name.encode())
        if size > self.longest:
            return f'"{_cut(name)}" has {size} bytes with its place, and {self.longest} is the most'
        for part in name.split("/"):
            size = len(part.encode())
            if size > self.longest_part:
                return f'"{_cut(part)}" has {size} bytes, and {self.longest_part} is the most between slashes'
        return None


def bucket(store: str, prefix: str) -> NameLimits:
    """In a bucket of S3 or Google Cloud Storage. A key has at most 1,024 bytes of UTF-8, whatever its slashes
    (both stores' quotas).
    """
    return NameLimits(store, prefix, len(prefix.encode()), 1024)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
