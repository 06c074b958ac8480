import socket
from pathlib import Path

import pytest
from pydantic import SecretStr

from flagstream.config import load
from flagstream.config.flags import HttpFlagSettings, RelayFlagSettings, SourceUnion
from flagstream.errors import ConfigError
from flagstream.flag_sources.opening import place

HIDDEN = "hunter2"


def problems(tmp_path: Path, text: str, environ: dict[str, str]) -> list[str]:
    path = tmp_path / "flagstream.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, environ)
    return caught.value.problems


@pytest.mark.parametrize("environ", [{}, {"FLAGSTREAM_FLAGS__SOURCES__3__API_KEY": HIDDEN}])
def test_all_mistakes_are_told_at_once_without_secrets(tmp_path: Path, environ: dict[str, str]) -> None:
    """Each with its number and key, also where variables are put into the list."""
    text = f"""
        [[flags.sources]]
        type = "http"
        url = "ftp://u:{HIDDEN}@host/x"
        tiemout = "1x"
        [[flags.sources]]
        type = "htp"
        [[flags.sources]]
        bucket = "x"
        [[flags.sources]]
        type = "relay"
    """
    assert problems(tmp_path, text, environ) == [
        "flags.sources.0.url: is not an address; write https://HOST/PATH",
        "flags.sources.0.tiemout: unknown key; did you mean timeout?",
        'flags.sources.1: type "htp" is not a source; did you mean http?',
        "flags.sources.2: type is missing; write one of file, http, s3, gcs, relay",
        "flags.sources.3.url: is missing: The relay's address, without a path unless it has a prefix",
    ]


def test_two_sources_of_one_place_need_names(tmp_path: Path) -> None:
    """Logs, metrics and the cache distinguish them by name."""
    relay = '[[flags.sources]]\ntype = "relay"\nurl = "http://relay"\n'

    assert problems(tmp_path, relay + relay, {}) == [
        'flags.sources: "http://relay" is there twice; give each source a name of its own'
    ]


def test_the_simple_file_comes_first_and_secrets_come_from_variables(tmp_path: Path) -> None:
    """flags.path is merged before the list; sources are numbered from 0 on, in a file or without one."""
    environ = {
        "FLAGSTREAM_FLAGS__PATH": "flags.yaml",
        "FLAGSTREAM_FLAGS__SOURCES__0__TYPE": "relay",
        "FLAGSTREAM_FLAGS__SOURCES__0__URL": f"http://u:{HIDDEN}@relay:1031",
        "FLAGSTREAM_FLAGS__SOURCES__0__API_KEY": HIDDEN,
    }
    settings = load(None, environ).flags

    assert [source.called() for source in settings.all_sources()] == ["flags.yaml", "http://relay:1031"]
    assert HIDDEN not in repr(settings)


@pytest.mark.parametrize(
    "settings",
    [
        RelayFlagSettings(
            type="relay", url=SecretStr("http://127.0.0.1:9"), api_key=SecretStr(f"{HIDDEN}\n")
        ),
        HttpFlagSettings.model_construct(
            type="http",
            url=SecretStr("http://127.0.0.1:9"),
            headers={"Authorization": SecretStr(f"{HIDDEN}é")},
        ),
    ],
)
def test_a_header_that_cannot_be_sent_is_not_shown(settings: SourceUnion) -> None:
    """Such as a key from a file that ends with a line break: the client library would quote it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = SecretStr(f"http://127.0.0.1:{server.getsockname()[1]}")
        source = place(settings.model_copy(update={"url": url}))
        with pytest.raises(OSError, match="a header holds characters") as caught:
            source.fetch(unconditional=True)
    assert HIDDEN not in str(caught.value)


def test_an_endpoint_holds_no_password(tmp_path: Path) -> None:
    """The client libraries would show it whenever the endpoint does not answer."""
    text = f"""
        [[flags.sources]]
        type = "s3"
        bucket = "b"
        key = "k"
        endpoint = "http://u:{HIDDEN}@host"
    """
    (problem,) = problems(tmp_path, text, {})
    assert problem.startswith("flags.sources.0.endpoint: holds no user or password")
    assert HIDDEN not in problem
