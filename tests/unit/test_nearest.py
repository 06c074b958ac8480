"""Which known word somebody meant who wrote another one."""

import pytest

from flagstream.nearest import near, nearest

KNOWN = ("STANDARD", "STANDARD_IA", "GLACIER", "max_events", "max_bytes")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("STANDARD_AI", "STANDARD_IA"),
        ("glacier", "GLACIER"),
        ("Max_Event", "max_events"),
        ("bytes", "max_bytes"),
        ("max", None),
        ("webhook", None),
    ],
)
def test_a_word_is_known_by_its_spelling_or_by_one_part(word: str, meant: str | None) -> None:
    """Capitals do not matter. A part of a name counts if only one name has it."""
    assert near(word, KNOWN) == meant


def test_a_higher_cutoff_takes_fewer_words() -> None:
    """The caller decides how alike two words have to be."""
    assert near("scram", ["SCRAM-SHA-512"], cutoff=0.5) == "SCRAM-SHA-512"
    assert near("scram", ["SCRAM-SHA-512"], cutoff=0.9) is None


def test_a_message_ends_with_the_word_that_was_meant_or_with_all() -> None:
    """Nothing is added if nothing is known."""
    assert nearest("fil", ["log", "file"]) == "; did you mean file?"
    assert nearest("zzz", ["log", "file"]) == "; known are file, log"
    assert nearest("zzz", []) == ""
