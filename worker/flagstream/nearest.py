"""Finds the known word that somebody meant who wrote another one."""

import difflib
from collections.abc import Iterable


def near(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the known word that is spelt most like ``word``, apart from capitals, or else the only one that
    has ``word`` between underscores; None if there is neither.

    ``cutoff`` is the least likeness, from 0 to 1, that counts.
    """
    known = sorted(known)
    spelt = {one.lower(): one for one in reversed(known)}
    if found := difflib.get_close_matches(word.lower(), sorted(spelt), n=1, cutoff=cutoff):
        return spelt[found[0]]
    having = [one for one in known if word.lower() in one.split("_")]
    return having[0] if len(having) == 1 else None


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the end of a message about the unknown ``word``: the word that was probably meant, or all known
    ones.
    """
    known = sorted(known)
    if meant := near(word, known):
        return f"; did you mean {meant}?"
    return f"; known are {', '.join(known)}" if known else ""
