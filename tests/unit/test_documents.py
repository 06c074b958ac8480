"""What the documents say is so: links, names of metrics, settings and steps, and the scripts shown."""

import ast
import json
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

import flagstream
from flagstream.chunk import Partition
from flagstream.config import load
from flagstream.config.settings import Settings
from flagstream.crashpoints import POINTS
from flagstream.errors import ExitCode
from flagstream.kafka.commit_metadata import Committed
from flagstream.operate.health import KINDS
from flagstream.operate.metrics import REGISTRY
from flagstream.sinks.objects.file import FileSettings, FileSink
from flagstream.sinks.rehearsal import render
from flagstream.sinks.settings import SinkSettings
from flagstream.testing import StoredRecord
from flagstream.window import ContentDigest, Manifest, OffsetRange

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
OPERATIONS = (REPOSITORY / "docs/operations.md").read_text()
GUARANTEES = (REPOSITORY / "docs/guarantees.md").read_text()
TOPICS = (REPOSITORY / "docs/topics.md").read_text()
HOW_IT_WORKS = (REPOSITORY / "docs/how-it-works.md").read_text()

SUFFIXES = {"yaml", "toml", "json"}
"""Of files that are called like a table of the configuration: flags.yaml."""

each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY))
)


def prose(text: str) -> str:
    """``text`` without its blocks of code."""
    return re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return what can follow ``#`` in a link to a document with this text:
    its headings as GitHub spells them."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code(text: str, label: str) -> str:
    """Return the block of code after the comment ``<!-- label -->``."""
    block = re.search(rf"<!-- {label} -->\n```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert block is not None, label
    return block[1]


def table_below(text: str, header: str) -> str:
    """The rows of the table whose first line begins with ``header``."""
    table = re.search(rf"^{re.escape(header)}.*?\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table is not None, header
    return table[1]


def first_cells(rows: str) -> set[str]:
    """Return the words in backticks in the first column."""
    return {name for row in rows.splitlines() for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def logged_events() -> set[str]:
    """Every literal that the worker hands to a logger as the event."""
    return {
        node.args[0].value
        for path in Path(flagstream.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("debug", "info", "warning", "error", "critical")
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    } | {"transaction_aborted"}  # its level is chosen, so the logger's method has another name


def importable(name: str) -> bool:
    """Whether ``name`` is a module, or something that a module has."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


@pytest.mark.checkout
@each_document
def test_links_lead_somewhere(document: Path) -> None:
    """Every link to a file of the repository finds it, and the heading in it."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(document.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            dead.append(link)

    assert dead == []


@pytest.mark.checkout
@each_document
def test_files_that_are_named_exist(document: Path) -> None:
    """A path that begins with a folder of the repository leads to a file or folder of it."""
    named = re.findall(
        r"(?<![\w./-])((?:worker|tests|avro|bench|deploy)/[\w./-]*[\w/])", document.read_text()
    )

    assert [name for name in named if not (REPOSITORY / name).exists()] == []


def test_modules_in_the_picture_of_the_flow_exist() -> None:
    """The page for contributors names modules by their place in the package, ``kafka/consumer.py``."""
    package = Path(flagstream.__file__).parent
    folders = "|".join(path.parent.name for path in package.glob("*/__init__.py"))

    named = re.findall(rf"(?<![\w./])((?:{folders})/\w+\.py)", HOW_IT_WORKS)

    assert named != []
    assert [name for name in named if not (package / name).exists()] == []


@pytest.mark.parametrize(
    "document",
    [path for path in DOCUMENTS if path.name != "CHANGELOG.md"],  # which also names what was before
    ids=lambda path: str(path.relative_to(REPOSITORY)),
)
def test_modules_that_are_named_exist(document: Path) -> None:
    """``flagstream.window.Manifest`` and the like can be imported. Groups, files and keys begin in the same
    way."""
    others = re.compile(r"flagstream\.(toml|example\.toml|sink\b.*|enrich|archive|manifest)$")

    named = set(re.findall(r"\bflagstream(?:\.[A-Za-z_]\w*)+", document.read_text()))

    assert [name for name in sorted(named) if not others.match(name) and not importable(name)] == []


def test_every_metric_is_documented() -> None:
    """The table of metrics has each by the name that Prometheus sees, and no other."""
    exposed = {family.name + ("_total" if family.type == "counter" else "") for family in REGISTRY.collect()}

    assert first_cells(table_below(OPERATIONS, "| Metric |")) == exposed


def test_no_document_names_a_metric_that_is_not_there() -> None:
    """Queries and alerts work as they are shown."""
    exposed = {family.name + ("_total" if family.type == "counter" else "") for family in REGISTRY.collect()}
    named = {name for document in DOCUMENTS for name in re.findall(r"\bflagstream_\w+", document.read_text())}

    assert named - exposed == set()


def test_every_kind_of_problem_is_documented() -> None:
    """The table of kinds has the words of the code."""
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", table_below(OPERATIONS, "| Kind |"), re.MULTILINE)

    assert dict(rows) == KINDS


def test_every_alert_is_documented() -> None:
    """The table of alerts is that of the rules, and they name no metric that is not there."""
    text = (REPOSITORY / "deploy/alerts.yaml").read_text()
    exposed = {family.name + ("_total" if family.type == "counter" else "") for family in REGISTRY.collect()}

    assert first_cells(table_below(OPERATIONS, "| Alert |")) == set(re.findall(r"alert: (\w+)", text))
    assert set(re.findall(r"\bflagstream_\w+", text)) <= exposed


def test_every_exit_code_is_documented() -> None:
    """The table of exit codes is that of the code."""
    rows = re.findall(r"^\| (\d+) `(\w+)` \|", table_below(OPERATIONS, "| Exit code |"), re.MULTILINE)

    assert {(int(number), name) for number, name in rows} == {(int(code), code.name) for code in ExitCode}


def test_documented_log_events_are_logged() -> None:
    """Whoever searches a log for an event in the table can find it."""
    assert first_cells(table_below(OPERATIONS, "| Event |")) <= logged_events()


def test_every_crash_point_is_explained() -> None:
    """What the next owner does is said of each step at which a worker can die."""
    assert first_cells(table_below(HOW_IT_WORKS, "| Dies at |")) == POINTS


@each_document
def test_settings_that_are_named_exist(document: Path) -> None:
    """``section.key`` in backticks is a setting, or a crash point."""
    sections = {
        name: field.annotation.model_fields.keys()
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    sections["sinks.<name>"] = SinkSettings.model_fields.keys()
    named = re.findall(r"`(sinks\.<name>|[a-z]+)\.(\w+)(?: = [^`]*)?`", prose(document.read_text()))

    unknown = {
        f"{section}.{key}"
        for section, key in named
        if section in sections
        and key not in {*sections[section], *SUFFIXES}
        and f"{section}.{key}" not in POINTS
    }
    assert unknown == set()


@each_document
def test_examples_of_the_configuration_are_accepted(document: Path, tmp_path: Path) -> None:
    """Every block of TOML is a configuration without a mistake, at least for its sinks, unless a comment
    before it says what else it is.
    """
    file = tmp_path / "flagstream.toml"
    for block in re.findall(r"(?<!-->\n)^```toml\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL):
        file.write_text(block)

        load(file, {}, enrich="[flags]" in block)


def test_the_names_of_a_layout_are_those_that_render_shows(tmp_path: Path) -> None:
    """The page on files shows a sink and the names that it gives."""
    page = (REPOSITORY / "docs/sinks/file.md").read_text()
    shown = re.search(r"```toml\n([^`]*)```\n\n`flagstream render` prints[^`]*```\n(.*?)```", page, re.DOTALL)
    assert shown is not None
    file = tmp_path / "flagstream.toml"
    file.write_text(shown[1])
    settings = load(file, {}, enrich=False)

    (preview,) = render(settings.topics.output, settings.sinks["lake"])

    assert list(preview.names) == shown[2].splitlines()


def test_the_kubernetes_manifest_configures_a_worker(tmp_path: Path) -> None:
    """Its configuration is accepted, and its flags and its probes are where the worker has them."""
    documents = list(yaml.safe_load_all((REPOSITORY / "deploy/kubernetes.yaml").read_text()))
    files = next(part["data"] for part in documents if part["kind"] == "ConfigMap")
    pod = next(part for part in documents if part["kind"] == "StatefulSet")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    file = tmp_path / "flagstream.toml"
    file.write_text(files["flagstream.toml"])

    settings = load(file, {})

    assert settings.flags.path is not None
    assert settings.flags.path.name in files
    assert settings.web.port == container["ports"][0]["containerPort"]
    assert pod["terminationGracePeriodSeconds"] >= settings.shutdown.budget + 20
    service = next(part["spec"] for part in documents if part["kind"] == "Service")
    assert service["publishNotReadyAddresses"] is True  # or Prometheus loses the workers that it is about
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert {variable["name"] for variable in container["env"]} >= {"FLAGSTREAM_KAFKA__INSTANCE"}


def test_the_example_of_committed_metadata_is_a_plan() -> None:
    """What the page shows is what the worker reads."""
    committed = Committed.parse(code(TOPICS, "metadata"))

    assert committed.plan is not None
    assert committed.text() == code(TOPICS, "metadata").strip()
    fields = first_cells(table_below(TOPICS, "| Field |"))
    assert fields == {
        *("v", "from", "end", "n", "digest", "cfg", "at", "cuts", "out", "why"),
        *("unknown", "tid", "since", "of"),
    }
    assert set(json.loads(committed.text())) <= fields


# ── the scripts that prove an archive whole ─────────────────────────────────

TOPIC = "flag-evaluations-enriched"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder in which a file sink has stored three windows of partition 0 and one of partition 11."""
    folder = tmp_path / "archive"
    sink = FileSink(FileSettings(path=folder))
    sink.open()
    for index, start, end in ((0, 0, 3), (0, 3, 10), (0, 10, 11), (11, 5, 8)):
        partition = Partition(TOPIC, index)
        values = [b'{"key":"flag","userKey":"%d"}' % offset for offset in range(start, end)]
        digest = ContentDigest()
        digest.update(values)
        encoder = sink.begin(partition, start)
        encoder.add(values, [StoredRecord(start + index, value) for index, value in enumerate(values)])
        bounds = OffsetRange(partition, start, end)
        manifest = Manifest(bounds, len(values), digest.hexdigest(), sink.fingerprint)
        sink.deliver(manifest, encoder.finish(manifest))
    return folder


def stored(archive: Path) -> Iterator[Path]:
    return iter(sorted((archive / TOPIC / "0").iterdir()))


def check_files(archive: Path) -> subprocess.CompletedProcess[str]:
    script = code(GUARANTEES, "archive")
    return subprocess.run(
        [sys.executable, "-I", "-c", script, str(archive)], capture_output=True, text=True, check=False
    )


def check_names(archive: Path) -> subprocess.CompletedProcess[str]:
    script = code(GUARANTEES, "names").replace("/data/evaluations", str(archive))
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)


def test_the_scripts_find_a_whole_archive_whole(archive: Path) -> None:
    """Both print from where and up to where each partition is whole."""
    files, names = check_files(archive), check_names(archive)

    assert (files.returncode, files.stderr) == (0, "")
    assert files.stdout.splitlines() == [
        f"{TOPIC}-0: whole from 0 up to 11",
        f"{TOPIC}-11: whole from 5 up to 8",
    ]
    assert names.stdout.splitlines() == [
        "0/ 3 files from 0000000000000000000 up to 0000000000000000011",
        "11/ 1 files from 0000000000000000005 up to 0000000000000000008",
    ]


def test_the_scripts_show_that_the_first_file_is_missing(archive: Path) -> None:
    """No gap shows that; the number from which a partition is whole does, and is to be compared."""
    next(stored(archive)).unlink()

    assert check_files(archive).stdout.splitlines()[0] == f"{TOPIC}-0: whole from 3 up to 11"
    assert "0/ 2 files from 0000000000000000003 up to" in check_names(archive).stdout


def test_the_scripts_find_a_missing_file(archive: Path) -> None:
    """A range that nothing covers is a gap."""
    list(stored(archive))[1].unlink()

    files, names = check_files(archive), check_names(archive)

    assert files.returncode == 1
    assert "gap or overlap" in files.stderr
    assert "gap or overlap between 0000000000000000003 and 0000000000000000010" in names.stdout


def test_the_script_finds_changed_content(archive: Path) -> None:
    """A file whose lines are not those of its digest is not what it says."""
    first, second = list(stored(archive))[:2]
    header, other = first.read_bytes(), second.read_bytes()
    end_of_header = 12 + int.from_bytes(header[10:12], "little")
    end_of_other = 12 + int.from_bytes(other[10:12], "little")
    first.write_bytes(header[:end_of_header] + other[end_of_other:])

    files = check_files(archive)

    assert files.returncode == 1
    assert "is not what it says" in files.stderr
