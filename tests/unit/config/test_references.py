"""``${NAME}`` in the file, and files that variables name: what is put in, and that it is never shown."""

from pathlib import Path

import pytest

from flagstream.config import load
from tests.unit.config.reading import WHOLE, accepted, command, problems

CANARY = "hunter2canary"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${ONE}", "1"),
        ("a-${ONE}-${_TWO_2}-z", "a-1-2${ONE}-z"),
        ("$${ONE}", "${ONE}"),
        ("$$${ONE}", "$${ONE}"),
        ("${{ .Key }} and $${{ .Key }}", "${{ .Key }} and $${{ .Key }}"),
        ('{{ .EventTime "${ONE}" }}', '{{ .EventTime "${ONE}" }}'),
        ("$ONE ${one} $", "$ONE ${one} $"),
    ],
)
def test_references_are_replaced_once(tmp_path: Path, written: str, value: str) -> None:
    """What is put in is not looked at again, and templates are left alone."""
    text = f"{WHOLE}[enrich.metadata]\nkey = '{written}'\nlist = 1"
    settings = load(_file(tmp_path, text), {"ONE": "1", "_TWO_2": "2${ONE}"})
    assert settings.enrich.metadata["key"] == value


def _file(folder: Path, text: str) -> Path:
    path = folder / "flagstream.toml"
    path.write_text(text)
    return path


def test_references_work_in_lists_tables_and_numbers(tmp_path: Path) -> None:
    """A text that stands for a number, an element of a list, a librdkafka property."""
    text = f"""{WHOLE}
        [[flags.sources]]
        type = "relay"
        url = "http://${{HOST}}"
        flags = ["a", "${{FLAG}}"]
        [web]
        port = "${{PORT}}"
        [kafka.properties]
        client.rack = "${{RACK}}"
    """
    environ = {"HOST": "relay:1031", "FLAG": "b", "PORT": "8080", "RACK": "r1"}
    settings = load(_file(tmp_path, text), environ)
    (_, relay) = settings.flags.all_sources()
    assert (relay.place(), relay.flags) == ("http://relay:1031", ["a", "b"])  # type: ignore[union-attr]
    assert (settings.web.port, settings.kafka.properties) == (8080, {"client.rack": "r1"})


def test_values_of_the_environment_are_taken_as_they_are(tmp_path: Path) -> None:
    """Only the file refers to variables."""
    environ = {"FLAGSTREAM_ENRICH__METADATA__KEY": "${HOME}", "HOME": "/root"}
    assert load(_file(tmp_path, WHOLE), environ).enrich.metadata == {"key": "${HOME}"}


def test_a_variable_of_a_list_that_is_not_set_is_told_in_whole_words(tmp_path: Path) -> None:
    """Nothing of the message is taken for the secret of the list, or for a value of one letter."""
    text = WHOLE + (
        '[sinks.a]\ntype = "webhook"\nendpoint_url = "https://receiver.example.com/x"\n'
        'secret = "${NOW}"\nprevious_secrets = ["${ONE}", "${TWO}"]\n'
    )
    assert problems(tmp_path, text, {"NOW": "hunter2", "ONE": "a"}) == [
        "sinks.a.previous_secrets.1: the variable TWO is not set; set it, or write $${TWO} for the text "
        "${TWO} itself"
    ]


def test_variables_that_are_not_set_are_told_with_their_paths(tmp_path: Path) -> None:
    """All of them, and nothing else of the same settings; an empty variable is set."""
    text = f'{WHOLE}[sinks.a]\ntype = "file"\npath = "${{NO_SUCH_DIR}}/x"\n[registry]\nuser = "${{EMPTY}}"\n'
    text += '[sinks.b]\ntype = "webhook"\nendpoint_url = "${NO_SUCH_URL}"\n'
    assert problems(tmp_path, text, {"EMPTY": ""}) == [
        "sinks.a.path: the variable NO_SUCH_DIR is not set; set it, or write $${NO_SUCH_DIR} for the text "
        "${NO_SUCH_DIR} itself",
        "sinks.b.endpoint_url: the variable NO_SUCH_URL is not set; set it, or write $${NO_SUCH_URL} for the "
        "text ${NO_SUCH_URL} itself",
    ]


def test_a_variable_that_is_stronger_makes_up_for_one_that_is_not_set(tmp_path: Path) -> None:
    """What is overridden need not be there."""
    text = f'{WHOLE}[sinks.a]\ntype = "file"\npath = "${{NO_SUCH_DIR}}"'
    assert accepted(tmp_path, text, {"FLAGSTREAM_SINKS__A__PATH": "/x"}) == []


@pytest.mark.parametrize("written", ["${DIR:-/tmp}", "${DIR", "${DIR-x}"])
def test_defaults_and_open_braces_are_refused(tmp_path: Path, written: str) -> None:
    """A shell would do something with them."""
    (problem,) = problems(tmp_path, f'{WHOLE}[enrich.metadata]\na = "{written}"', {"DIR": "x"})
    assert problem.startswith("enrich.metadata.a: ${DIR is not closed by }")


def test_small_letters_are_a_warning(tmp_path: Path) -> None:
    """They are left alone, and said."""
    (warning,) = accepted(tmp_path, WHOLE + '[enrich.metadata]\na = "x${db_password}"')
    assert warning == (
        "enrich.metadata.a: holds ${db_password}, which is not replaced: names of variables are capitals here"
    )


@pytest.mark.parametrize(
    "text",
    [
        'name = "${CANARY} x"\n',
        '[kafka]\nbootstrap_servers = "${CANARY}://b:9092"\n',
        '[kafka]\nbootstrap_servers = "${CANARY}"\n',
        '[kafka]\ngroup_protocol = "${CANARY}"\n',
        '[topics]\ningest = "${CANARY}"\noutput = "${CANARY}"\n',
        '[web]\nport = "${CANARY}"\n',
        '[web]\nhost = "x:${CANARY}"\n',
        '[enrich]\ncommit_interval = "${CANARY}"\n',
        '[enrich]\nstart = "${CANARY}"\n',
        '[export]\nmemory_budget = "${CANARY}"\n',
        '[kafka.properties]\n"security.protocol" = "${CANARY}"\n',
        '[kafka.properties]\n"compression.type" = "${CANARY}"\n',
        '[kafka]\n"${CANARY}" = "${CANARY}"\nfoo = "${CANARY}"\n',
        '[sinks.a]\ntype = "${CANARY}"\n',
        '[sinks.a]\ntype = "file"\npath = "a"\nname = "${CANARY}{{ .Foo }}"\n',
        '[sinks.a]\ntype = "file"\npath = "a"\ntime_zone = "${CANARY}"\n',
        '[sinks.a]\ntype = "gcs"\nbucket = "${CANARY}/${CANARY}"\n',
        '[sinks.a]\ntype = "s3"\nbucket = "b"\nendpoint = "${CANARY}"\n',
        '[[flags.sources]]\ntype = "${CANARY}"\n',
        '[[flags.sources]]\ntype = "relay"\nurl = "${CANARY}"\n',
        '[[flags.sources]]\ntype = "file"\npath = "/x/${CANARY}"\n[[flags.sources]]\ntype = "file"\n'
        'path = "/x/${CANARY}"\n',
    ],
)
@pytest.mark.parametrize("value", [CANARY, f"{CANARY}{'x' * 100}"])
def test_values_do_not_show_in_problems(tmp_path: Path, text: str, value: str) -> None:
    """Whatever is wrong, also where a message would cut the value."""
    found = problems(tmp_path, text + ("" if "flags" in text else WHOLE), {"CANARY": value})
    assert found
    assert not [line for line in found if CANARY in line]


def test_a_flag_path_of_a_variable_does_not_show_in_part(tmp_path: Path) -> None:
    """Where the format is missing, the message does not quote the file's name."""
    (problem,) = problems(tmp_path, '[flags]\npath = "${P}"\n[sinks.l]\ntype = "log"', {"P": f"/x/{CANARY}"})
    hidden = 'flags.format: is missing, and the name "**********" does not show it; '
    assert problem == f'{hidden}write "yaml", "json" or "toml"'


def test_values_show_neither_in_render_nor_in_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Place, record and reason are printed without them."""
    monkeypatch.setattr("flagstream.kafka.topics.ANSWER_SECONDS", 0.3)
    text = f"""{WHOLE}
        [kafka]
        bootstrap_servers = "${{BROKERS}}"
        [sinks.a]
        type = "file"
        path = "{tmp_path}/${{CANARY}}"
        [sinks.b]
        type = "s3"
        bucket = "b"
        prefix = "${{CANARY}}/"
        endpoint = "http://127.0.0.1:9"
        access_key = "a"
        secret_key = "sesame"
        connect_timeout = "200ms"
    """
    environ = {"CANARY": CANARY, "BROKERS": "127.0.0.1:1"}
    rendered = command(tmp_path, text, "render", environ=environ).output
    assert CANARY not in rendered
    assert "  **********/flag-evaluations-enriched/0/" in rendered
    assert "s3://b/**********" in rendered
    checked = command(tmp_path, text, "check", "--sink", "a", environ=environ).output
    assert CANARY not in checked
    assert "FAILED    kafka" in checked
    assert "127.0.0.1:1" not in checked


def test_values_do_not_show_where_settings_are_printed(tmp_path: Path) -> None:
    """Whoever logs all settings shows no value of a variable."""
    text = f'{WHOLE}[kafka]\nbootstrap_servers = "${{CANARY}}:9092"'
    settings = load(_file(tmp_path, text), {"CANARY": CANARY})
    assert settings.kafka.bootstrap_servers == f"{CANARY}:9092"
    assert CANARY not in f"{settings!r} {settings}"


@pytest.mark.parametrize("written", ["$PW", "${PW}", "$(PW)"])
def test_a_reference_that_nobody_replaced_is_a_warning(tmp_path: Path, written: str) -> None:
    """In the environment nothing is replaced, and in the file only one form; what is escaped is meant."""
    text = f'{WHOLE}[sinks.a]\ntype = "webhook"\nendpoint_url = "https://r.example.com"\nsecret = "$${{PW}}"'
    assert accepted(tmp_path, text) == []
    (warning,) = accepted(tmp_path, text, {"FLAGSTREAM_SINKS__A__SECRET": written})
    assert warning == (
        "sinks.a.secret (from FLAGSTREAM_SINKS__A__SECRET): looks like the name of a variable, but is "
        "taken as it "
        "stands"
    )


# ── X_FILE ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("content", ["", "\n", "\ufeff"])
def test_an_empty_file_is_no_empty_secret(tmp_path: Path, content: str) -> None:
    """What an agent has not written yet would else be taken for "no password"."""
    (tmp_path / "secret").write_text(content, encoding="utf-8")
    environ = {"FLAGSTREAM_REGISTRY__PASSWORD_FILE": str(tmp_path / "secret")}

    (problem,) = problems(tmp_path, WHOLE + '[registry]\nuser = "u"\nurl = "http://r"', environ)
    assert problem == "FLAGSTREAM_REGISTRY__PASSWORD_FILE: the file that it names is empty"


@pytest.mark.parametrize(
    ("content", "value"),
    [("x", "x"), ("x\n", "x"), ("x\r\n", "x"), ("x\n\n", "x\n"), (" x", " x"), ("\ufeffx\r\n", "x")],
)
def test_one_line_break_at_the_end_of_a_file_is_left_out(tmp_path: Path, content: str, value: str) -> None:
    """Editors and echo put one there; a second one was meant."""
    (tmp_path / "secret").write_bytes(content.encode())
    environ = {"FLAGSTREAM_REGISTRY__PASSWORD_FILE": str(tmp_path / "secret")}
    settings = (
        load(_file(tmp_path, WHOLE + '[registry]\nuser = "u"\nurl = "http://r"'), environ)
        if value in ("x", " x")
        else None
    )
    if settings is not None:
        assert settings.registry.password.get_secret_value() == value
    else:
        (problem,) = problems(tmp_path, WHOLE + '[registry]\nuser = "u"\nurl = "http://r"', environ)
        assert problem.startswith(
            "registry.password (from FLAGSTREAM_REGISTRY__PASSWORD_FILE): holds a line break at its end"
        )


def test_files_are_read_for_every_kind_of_setting(tmp_path: Path) -> None:
    """Sinks, sources, headers, librdkafka's properties, and what is not a secret."""
    for name in ("one", "url"):
        (tmp_path / name).write_text("http://value/\n" if name == "url" else "value\n")
    one = str(tmp_path / "one")
    environ = {
        "FLAGSTREAM_SINKS__HOOK__TYPE": "webhook",
        "FLAGSTREAM_SINKS__HOOK__ENDPOINT_URL_FILE": str(tmp_path / "url"),
        "FLAGSTREAM_SINKS__HOOK__SECRET_FILE": one,
        "FLAGSTREAM_SINKS__HOOK__PREVIOUS_SECRETS_FILE": one,
        "FLAGSTREAM_SINKS__HOOK__HEADERS__AUTHORIZATION_FILE": one,
        "FLAGSTREAM_FLAGS__SOURCES__0__TYPE": "relay",
        "FLAGSTREAM_FLAGS__SOURCES__0__URL": "http://relay",
        "FLAGSTREAM_FLAGS__SOURCES__0__API_KEY_FILE": one,
        "FLAGSTREAM_KAFKA__PROPERTIES__SASL_PASSWORD_FILE": one,
        "FLAGSTREAM_KAFKA__PROPERTIES__SASL_USERNAME_FILE": one,
        "FLAGSTREAM_KAFKA__PROPERTIES__SECURITY_PROTOCOL": "sasl_ssl",
        "FLAGSTREAM_KAFKA__PROPERTIES__SASL_MECHANISMS": "PLAIN",
        "FLAGSTREAM_KAFKA__INSTANCE_FILE": one,
    }
    settings = load(None, environ)
    hook = settings.sinks["hook"].model_dump()
    assert hook["secret"].get_secret_value() == "value"
    assert hook["endpoint_url"].get_secret_value() == "http://value/"
    assert hook["previous_secrets"][0].get_secret_value() == "value"
    assert hook["headers"]["authorization"][0].get_secret_value() == "value"
    assert settings.kafka.instance == settings.kafka.properties["sasl.username"] == "value"
    assert settings.kafka.properties["sasl.password"].get_secret_value() == "value"  # type: ignore[union-attr]
    (relay,) = settings.flags.all_sources()
    assert relay.api_key.get_secret_value() == "value"  # type: ignore[union-attr]


def test_a_setting_that_ends_in_file_stays_one(tmp_path: Path) -> None:
    """credentials_file names a file that the client reads; metadata may have any name."""
    environ = {
        "FLAGSTREAM_SINKS__A__TYPE": "gcs",
        "FLAGSTREAM_SINKS__A__BUCKET": "bucket",
        "FLAGSTREAM_SINKS__A__CREDENTIALS_FILE": "/no/such/file",
        "FLAGSTREAM_ENRICH__METADATA__A_FILE": "/no/such/file",
        "FLAGSTREAM_FLAGS__PATH": "flags.yaml",
        "FLAGSTREAM_KAFKA__PROPERTIES__SASL_OAUTHBEARER_ASSERTION_FILE": "/no/such/file",
        "FLAGSTREAM_KAFKA__PROPERTIES__SECURITY_PROTOCOL": "sasl_ssl",
        "FLAGSTREAM_KAFKA__PROPERTIES__SASL_MECHANISMS": "OAUTHBEARER",
        "FLAGSTREAM_KAFKA__PROPERTIES__SASL_OAUTHBEARER_METHOD": "oidc",
    }
    settings = load(None, environ)
    assert settings.sinks["a"].model_dump()["credentials_file"] == Path("/no/such/file")
    assert settings.enrich.metadata == {"a_file": "/no/such/file"}
    assert settings.kafka.properties["sasl.oauthbearer.assertion.file"] == "/no/such/file"


def test_a_file_that_cannot_be_read_is_a_problem_that_does_not_show_the_value(tmp_path: Path) -> None:
    """Somebody may have put the secret itself there."""
    environ = {"FLAGSTREAM_REGISTRY__PASSWORD_FILE": CANARY, "FLAGSTREAM_KAFKA__INSTANCE_FILE": str(tmp_path)}
    assert problems(tmp_path, WHOLE, environ) == [
        "FLAGSTREAM_KAFKA__INSTANCE_FILE: the file that it names cannot be read: Is a directory",
        "FLAGSTREAM_REGISTRY__PASSWORD_FILE: the file that it names cannot be read: No such file or "
        "directory",
    ]


def test_a_value_and_a_file_contradict_each_other(tmp_path: Path) -> None:
    """One of them would be a rest of before."""
    environ = {"FLAGSTREAM_KAFKA__INSTANCE_FILE": "/x", "FLAGSTREAM_KAFKA__INSTANCE": "a"}
    assert problems(tmp_path, WHOLE, environ) == [
        "FLAGSTREAM_KAFKA__INSTANCE_FILE: contradicts FLAGSTREAM_KAFKA__INSTANCE; set one of them"
    ]


def test_what_a_file_holds_does_not_show(tmp_path: Path) -> None:
    """The content of a file is hidden also where it is not a secret by itself."""
    (tmp_path / "brokers").write_text(f"{CANARY}\n")
    environ = {"FLAGSTREAM_KAFKA__BOOTSTRAP_SERVERS_FILE": str(tmp_path / "brokers")}
    assert problems(tmp_path, WHOLE, environ) == [
        "kafka.bootstrap_servers (from FLAGSTREAM_KAFKA__BOOTSTRAP_SERVERS_FILE): "
        '"**********" has no port; write "**********:9092"'
    ]
