"""Merges several sources into one set of flags."""

from collections.abc import Iterable, Mapping

from flagstream.flags import Flag, FlagSet


def merged(sets: Iterable[FlagSet]) -> FlagSet:
    """Return all flags. If several sets have a flag, the last one wins, wholly: GO Feature Flag's rule.

    A flag that is invalid in the last set that names it is invalid, whatever earlier sets say: they no longer
    count. There is one exception: if an earlier set says that the flag's events are not exported, that holds,
    because an entry that cannot be read does not revoke it.
    """
    flags: dict[str, Flag] = {}
    invalid: dict[str, str] = {}
    changes = []
    for one in sets:
        flags = {name: flag for name, flag in flags.items() if name not in one.invalid or not flag.track}
        flags |= one.flags
        invalid = {name: why for name, why in invalid.items() if name not in one.flags} | dict(one.invalid)
        if one.next_change:
            changes.append(one.next_change)
    return FlagSet(flags, invalid, min(changes, default=None))


def contradictions(sets: Mapping[str, FlagSet]) -> dict[str, str]:
    """Return the flags whose events one source exports and another does not, each with what the sources say.

    The last source counts for all events, whichever application evaluated the flag: flags of two environments
    or flag sets need a worker each.
    """
    said: dict[str, dict[bool, list[str]]] = {}
    for source, flags in sets.items():
        for name, flag in flags.items():
            said.setdefault(name, {}).setdefault(flag.track, []).append(source)
    return {
        name: f"exported by {', '.join(by[True])}; not exported by {', '.join(by[False])}"
        for name, by in said.items()
        if len(by) == 2
    }
