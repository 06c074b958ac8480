"""Dead letters: what they carry, and how they are cut to what a topic takes."""

from dataclasses import dataclass, field

import pytest

from flagstream import __version__
from flagstream.chunk import Headers, Partition
from flagstream.dead_letters import ERROR_LIMIT, DeadLetter, dead_letter, fit, size
from flagstream.record_limits import ENVELOPE


@dataclass(frozen=True)
class Ingested:
    """Return a record of the ingest topic."""

    content: bytes | None
    name: bytes | None = b"k"
    own: Headers = field(default_factory=list)

    def offset(self) -> int:
        return 7

    def key(self) -> bytes | None:
        return self.name

    def value(self) -> bytes | None:
        return self.content

    def headers(self) -> Headers | None:
        return self.own or None

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_700_000_000_000


def letter(record: Ingested, *, error: str = "why", limit: int = 1_000_000) -> DeadLetter:
    return dead_letter(
        Partition("ingest", 3), record, stage="enrich", reason="invalid_json", error=error, limit=limit
    )


def header(found: DeadLetter, name: str) -> bytes | None:
    return dict(found.headers).get(f"flagstream-{name}")


def test_the_record_is_kept_and_its_origin_added() -> None:
    """Key, value and headers stay, in their order; the worker's come after them."""
    own: Headers = [("h", b"1"), ("h", None)]

    found = letter(Ingested(b"\xff", b"\x00", own))

    assert found == DeadLetter(
        b"\x00",
        b"\xff",
        [
            *own,
            ("flagstream-stage", b"enrich"),
            ("flagstream-topic", b"ingest"),
            ("flagstream-partition", b"3"),
            ("flagstream-offset", b"7"),
            ("flagstream-timestamp", b"1700000000000"),
            ("flagstream-reason", b"invalid_json"),
            ("flagstream-error", b"why"),
            ("flagstream-version", __version__.encode()),
        ],
        "invalid_json",
        "ingest-3@7",
    )


def test_a_tombstone_stays_one() -> None:
    """Null is not the empty value, and no key not the empty key."""
    found = letter(Ingested(None, None))

    assert (found.key, found.value) == (None, None)


def test_a_long_error_is_cut() -> None:
    """Texts that quote a record may be as large as the record."""
    assert header(letter(Ingested(b""), error="e" * 5000), "error") == b"e" * ERROR_LIMIT


def test_an_error_that_is_no_unicode_text_is_written_all_the_same() -> None:
    """Half a surrogate pair cannot be encoded; it becomes a question mark, not an exception."""
    assert header(letter(Ingested(b""), error="half \ud800"), "error") == b"half ?"


def test_one_that_just_fits_is_left_alone() -> None:
    """The limit is the topic's, less what Kafka puts around a record; a byte more, and it is cut."""
    whole = DeadLetter(b"k", b"v" * 100, [("flagstream-reason", b"r")], "r", "ingest-3@7")
    limit = size(whole.key, whole.value, whole.headers) + ENVELOPE

    assert fit(whole, limit) is whole
    assert header(fit(whole, limit - 1), "truncated-from") == b"100"
    assert fit(whole, limit - 1).place == whole.place


@pytest.mark.parametrize("limit", [2_000, 3_000, 20_000])
@pytest.mark.parametrize(
    "record",
    [
        Ingested(b"v" * 50_000),
        Ingested(b"v" * 50_000, b"k" * 50_000),
        Ingested(b"v" * 50_000, own=[("h", b"h" * 50_000)]),
        Ingested(b"", b"k" * 50_000, [("h" * 50_000, None)]),
        Ingested(None, b"k" * 50_000),
    ],
    ids=["value", "key", "header", "header's name", "tombstone"],
)
def test_what_is_cut_fits(record: Ingested, limit: int) -> None:
    """Whatever is too large of it: the rest fits, says where it came from and how large the value was."""
    found = letter(record, limit=limit)

    assert size(found.key, found.value, found.headers) + ENVELOPE <= limit
    assert header(found, "truncated-from") == str(len(record.content or b"")).encode()
    assert (header(found, "offset"), header(found, "reason")) == (b"7", b"invalid_json")
    assert (record.content or b"").startswith(found.value or b"")


def test_the_values_beginning_is_what_is_kept() -> None:
    """It keeps as much of it as there is room for, with key and headers whole."""
    found = letter(Ingested(b"0123456789" * 1000, own=[("h", b"1")]), limit=4_000)

    assert found.key == b"k"
    assert ("h", b"1") in found.headers
    assert size(found.key, found.value, found.headers) + ENVELOPE == 4_000


def test_size_counts_names_in_utf8_and_framing() -> None:
    """A header costs its name, its value and up to ten bytes of framing."""
    assert size(b"kk", b"vvv", [("é", b"1"), ("n", None)]) == 2 + 3 + (2 + 1 + 10) + (1 + 10)
