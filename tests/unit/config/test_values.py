"""Values that their types let pass and that cannot work: secrets, paths, sizes, addresses, properties."""

from pathlib import Path

import pytest

from flagstream.config.values import unfit_in_secret
from tests.unit.config.reading import FLAGS, LOG, WHOLE, accepted, problems

CANARY = "hunter2"
PEM = "-----BEGIN PRIVATE KEY-----\nQUJD\nREVG\n-----END PRIVATE KEY-----\n"
KAFKA = """[kafka.properties]
security.protocol = "sasl_ssl"
sasl.mechanisms = "PLAIN"
sasl.username = "u"
sasl.password = "p"
"""
OAUTH = """[kafka.properties]
security.protocol = "sasl_ssl"
sasl.mechanisms = "OAUTHBEARER"
sasl.oauthbearer.method = "oidc"
sasl.oauthbearer.client.id = "c"
sasl.oauthbearer.token.endpoint.url = "https://login.example.com/token"
sasl.oauthbearer.client.secret = "s"
"""
S3 = '[sinks.a]\ntype = "s3"\nbucket = "b"\naccess_key = "a"\nsecret_key = "s"\n'
HOOK = '[sinks.a]\ntype = "webhook"\nendpoint_url = "https://receiver.example.com/x"\nsecret = "s"\n'
COPY = (
    '[sinks.a]\ntype = "kafka"\ntopic = "t"\nbootstrap_servers = "b:9092"\n[sinks.a.properties]\n'
    'security.protocol = "sasl_ssl"\nsasl.mechanisms = "PLAIN"\nsasl.username = "u"\nsasl.password = "p"\n'
)

SECRETS = {
    "FLAGSTREAM_KAFKA__PROPERTIES__SASL_PASSWORD": KAFKA,
    "FLAGSTREAM_KAFKA__CONSUMER_PROPERTIES__SASL_PASSWORD": KAFKA,
    "FLAGSTREAM_KAFKA__PRODUCER_PROPERTIES__SSL_KEY_PASSWORD": KAFKA,
    "FLAGSTREAM_KAFKA__PROPERTIES__SSL_KEYSTORE_PASSWORD": KAFKA,
    "FLAGSTREAM_KAFKA__PROPERTIES__SASL_OAUTHBEARER_CLIENT_SECRET": OAUTH,
    "FLAGSTREAM_REGISTRY__PASSWORD": '[registry]\nuser = "u"\nurl = "http://r"\n'
    '[topics]\ningest_format = "avro"\n',
    "FLAGSTREAM_SINKS__A__SECRET_KEY": S3,
    "FLAGSTREAM_SINKS__A__SECRET": HOOK,
    "FLAGSTREAM_SINKS__A__PREVIOUS_SECRETS": HOOK,
    "FLAGSTREAM_SINKS__A__HEADERS__AUTHORIZATION": HOOK,
    "FLAGSTREAM_SINKS__A__PROPERTIES__SASL_PASSWORD": COPY,
    "FLAGSTREAM_FLAGS__SOURCES__0__API_KEY": '[[flags.sources]]\ntype = "relay"\nurl = "http://r"\n',
    "FLAGSTREAM_FLAGS__SOURCES__0__HEADERS__TOKEN": '[[flags.sources]]\ntype = "http"\nurl = "http://r"\n',
}
"""Every kind of setting that holds a secret, and the configuration that it belongs to."""


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("secret", [f"{CANARY}\n", f"{CANARY}\r", f"\t{CANARY}", f"{CANARY}\x1b", "a\x85b"])
def test_control_characters_in_a_secret_are_refused(tmp_path: Path, name: str, secret: str) -> None:
    """A line break from a file would make a header that quotes the secret, or sign wrongly for ever."""
    flags = "" if "SOURCES" in name else FLAGS
    found = problems(tmp_path, SECRETS[name] + flags + LOG, {name: secret})
    assert found
    assert not [line for line in found if CANARY in line]
    assert "HEADERS" in name or [line for line in found if name in line]


@pytest.mark.parametrize("name", [name for name in SECRETS if "HEADERS" not in name])
def test_white_space_around_a_secret_is_a_warning(tmp_path: Path, name: str) -> None:
    """It could be meant."""
    flags = "" if "SOURCES" in name else FLAGS
    (warning,) = accepted(tmp_path, SECRETS[name] + flags + LOG, {name: f"{CANARY} "})
    assert "has white space at its beginning or end" in warning
    assert name in warning
    assert CANARY not in warning


@pytest.mark.parametrize("secret", [PEM, PEM.replace("\n", "\r\n"), '{\n\t"type": "x"\n}\n'])
def test_lines_of_pem_and_json_are_fine(tmp_path: Path, secret: str) -> None:
    """Keys come in lines, and so do credentials in JSON."""
    assert accepted(tmp_path, HOOK + WHOLE, {"FLAGSTREAM_SINKS__A__SECRET": secret}) == []


def test_other_control_characters_in_a_pem_are_refused() -> None:
    """Lines are all that it may have."""
    assert unfit_in_secret(PEM) is None
    assert unfit_in_secret(PEM.replace("QUJD", "QU\x1bJD")) is not None


@pytest.mark.parametrize(
    "text",
    [
        f"[registry]\npassword = {{ value = '{CANARY}' }}",
        f"[registry]\npassword = ['{CANARY}']",
        "[registry]\npassword = 20261129",
        "[registry]\npassword = 2026-11-29",
        f"registry = '{CANARY}'",
        f'{HOOK.replace("secret = ", "#")}secret = ["{CANARY}"]',
        f'{HOOK}headers = "Bearer {CANARY}"',
        f"{HOOK}headers = {{ Authorization = 20261129 }}",
        f"{HOOK}headers = {{ Authorization = {{ a = '{CANARY}' }} }}",
        f"{HOOK}previous_secrets = [20261129]",
        f"{HOOK}previous_secrets = {{ a = '{CANARY}' }}",
        f"[[flags.sources]]\ntype = 'relay'\nurl = 'http://r'\napi_key = ['{CANARY}']",
        f"[[flags.sources]]\ntype = 'http'\nurl = ['http://u:{CANARY}@r']",
        f"[[flags.sources]]\ntype = 'http'\nurl = 'http://r'\nheaders = ['{CANARY}']",
        f"[kafka.properties]\nsasl.password = ['{CANARY}']",
        f"[kafka.properties]\nsasl.password = {{ value = '{CANARY}' }}",
        "[kafka.properties]\nsasl.password = 2026-11-29",
        f"[kafka]\nbootstrap_servers = 'u:{CANARY}@b:9092'",
        f"[kafka]\nbootstrap_servers = 'SASL_SSL://u:{CANARY}@b:9092'",
        f"[registry]\nurl = 'http://u:{CANARY}@r'",
        f"{S3}endpoint = 'u:{CANARY}@host'",
        f"{S3}endpoint = 'http://u:{CANARY}@host'",
        f"[sinks.g]\ntype = 'gcs'\nbucket = 'bb'\nendpoint = 'u:{CANARY}@host'",
        f"[kafka.properties]\nsasl.oauthbearer.token.endpoint.url = 'https://u:{CANARY}@h/'",
        f"[kafka.properties]\nSASL.PASSWORD = '{CANARY}'",
        f"[kafka]\nsasl_password = '{CANARY}'",
    ],
)
def test_secrets_in_the_wrong_place_or_type_do_not_show(tmp_path: Path, text: str) -> None:
    """The message says what is wrong, never what was written."""
    found = problems(tmp_path, text if "sources" in text else f"{text}\n{WHOLE}")
    assert not [line for line in found if CANARY in line or "2026-11-29" in line or "20261129" in line]


# ── paths ────────────────────────────────────────────────────────────────

PATHS = {
    "flags.path": "[flags]\npath = {}\nformat = 'yaml'\n",
    "flags.cache_path": "[flags]\npath = 'f.yaml'\ncache_path = {}\n",
    "flags.sources.0.path": "[[flags.sources]]\ntype = 'file'\npath = {}\n",
    "flags.sources.0.credentials": "[[flags.sources]]\ntype = 'gcs'\nbucket = 'bb'\nobject = 'o'\n"
    "credentials = {}\n",
    "sinks.a.path": FLAGS + "[sinks.a]\ntype = 'file'\npath = {}\n",
    "sinks.a.credentials_file": FLAGS + "[sinks.a]\ntype = 'gcs'\nbucket = 'bb'\ncredentials_file = {}\n",
    "topics.ingest_schema": FLAGS + "[topics]\ningest_format = 'avro'\ningest_schema = {}\n",
    'kafka.properties."ssl.ca.location"': FLAGS
    + "[kafka.properties]\nsecurity.protocol = 'ssl'\nssl.ca.location = {}\n",
}


@pytest.mark.parametrize("key", PATHS)
@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            "'~/x'",
            'begins with "~", which only a shell replaces; write the whole path, or ${HOME}/... in the',
        ),
        ("'$HOME/x'", 'holds "$HOME", which is taken as it stands; in the file write ${HOME}'),
        ("'/a/$(HOME)/x'", 'holds "$(HOME)", which is taken as it stands; in the file write ${HOME}'),
        ("'/a/${home}/x'", 'holds "${home}", which is taken as it stands; in the file write ${HOME}'),
        ("'file:///x'", 'is an address ("file://"), and a path is needed'),
    ],
)
def test_what_only_a_shell_replaces_is_refused_in_paths(
    tmp_path: Path, key: str, written: str, said: str
) -> None:
    """Nobody wants a folder called ~."""
    found = problems(tmp_path, PATHS[key].format(written) + LOG)
    assert found[0].startswith(f"{key}: {said}")


@pytest.mark.parametrize("key", [key for key in PATHS if key[:6] != "topics" and key[:5] != "kafka"])
def test_an_empty_path_is_refused(tmp_path: Path, key: str) -> None:
    """It would be the working directory."""
    assert f"{key}: must not be empty" in problems(tmp_path, PATHS[key].format("''") + LOG)


def test_a_reference_in_a_variable_of_the_environment_is_refused(tmp_path: Path) -> None:
    """No shell replaces it there either."""
    text = PATHS["sinks.a.path"].format("'x'")
    (problem,) = problems(tmp_path, text, {"FLAGSTREAM_SINKS__A__PATH": "${HOME}/x"})
    assert problem.startswith('sinks.a.path (from FLAGSTREAM_SINKS__A__PATH): holds "${HOME}"')


def test_a_dollar_that_is_meant_is_taken(tmp_path: Path) -> None:
    """A dollar may come from a variable, or be written with two."""
    text = PATHS["sinks.a.path"]
    assert accepted(tmp_path, text.format("'${DIR}/x'"), {"DIR": "/a$b"}) == []
    assert accepted(tmp_path, text.format("'/a/$${b}'")) == []
