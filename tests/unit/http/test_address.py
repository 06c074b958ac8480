"""How an address is taken apart, and what of it is shown."""

import pytest

from flagstream.http.address import basic, parse


@pytest.mark.parametrize(
    ("text", "shown", "target"),
    [
        ("http://host", "http://host", "/"),
        ("https://Host:443/a", "https://host", "/a"),
        ("http://host:443/", "http://host:443", "/"),
        ("https://host?a=1#part", "https://host", "/?a=1"),
        ("http://[::1]:8080/x", "http://[::1]:8080", "/x"),
        ("http://h/a b/ü?q=a b", "http://h", "/a%20b/%C3%BC?q=a%20b"),
        ("http://h/a%20b?x=%2F", "http://h", "/a%20b?x=%2F"),
        ("https://straße.example/", "https://xn--strae-oqa.example", "/"),
    ],
)
def test_parts(text: str, shown: str, target: str) -> None:
    """Scheme, host and port are shown; the target is what a request line can hold."""
    address = parse(text)
    assert (address.shown, address.target) == (shown, target)
    assert address.authorization is None


def test_user_and_password() -> None:
    """Both become basic authentication, without the escapes of addresses, and are not shown."""
    address = parse("https://us%40er:p%C3%A4ss@host/secret?token=1")
    assert address.authorization == basic("us@er", "päss")
    assert not any(
        word in f"{address!r}{address.shown}" for word in ("er:", "ss@", "secret", "token", "Basic")
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host/path",
        "ftp://host/",
        "http://",
        "http:///path",
        "http://host:0/",
        "http://host:99999/",
        "http://host:hunter2/",
        "http://[::1/hunter2",
        "http://host/hunter2\n",
        "https://hun#ter2@host/",
        "http://\u2764\ufe0f\u200d/hunter2",
    ],
)
def test_what_is_not_an_address(text: str) -> None:
    """The message does not quote it: it may hold a password."""
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert "hunter2" not in str(caught.value)
