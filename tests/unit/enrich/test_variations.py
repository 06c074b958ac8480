import pytest

from flagstream.enrich.variations import MAX_REMEMBERED, Variations


def test_values_that_no_flag_has_do_not_fill_the_memory() -> None:
    """A flag whose events carry another value each time still finds its variations, and forgets the rest."""
    variations = Variations({"one": 1})
    for number in range(2, 2 * MAX_REMEMBERED):
        assert variations.name_of(b"%d" % number) == ""

    assert variations.name_of(b"1") == "one"
    assert len(variations._remembered) <= MAX_REMEMBERED


@pytest.mark.parametrize("value", [b"1e999", b"9" * 10_000, b"[" * 900 + b"]" * 900])
def test_a_value_beyond_all_flags_is_no_variation(value: bytes) -> None:
    """What no flag file can hold equals nothing, and does not raise."""
    assert Variations({"one": 1}).name_of(value) == ""


def test_a_configured_value_beyond_json_does_no_harm() -> None:
    """A flag value that is nested without end, or that JSON has no type for, equals nothing."""
    nested: list[object] = []
    for _ in range(5_000):
        nested = [nested]
    variations = Variations({"deep": nested, "set": {1}, "one": 1})

    assert variations.name_of(b"1") == "one"
    assert variations.name_of(b"[1]") == ""
