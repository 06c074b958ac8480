"""The image and the manifests: what can be seen in them without building or applying them."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from flagstream.config import load
from tests.support.dockerfile import Stage, assignments, copy_context, stages

pytestmark = pytest.mark.checkout

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILE = (REPOSITORY / "deploy/Dockerfile").read_text()
ARGUMENTS, (BUILD, FINAL) = stages(DOCKERFILE)


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, check=True, text=True)
    return [path for name in listed.stdout.splitlines() if (path := REPOSITORY / name).is_file()]


def environment(stage: Stage) -> dict[str, str]:
    return {name: value for rest in stage.all("ENV") for name, value in assignments(rest).items()}


def test_the_context_has_what_the_build_copies_and_the_package_needs(tmp_path: Path) -> None:
    """Every COPY finds its sources, and so does every file that the wheel is made to include."""
    copy_context(REPOSITORY, (REPOSITORY / "deploy/Dockerfile.dockerignore").read_text(), tmp_path, tracked())
    copied = [source for rest in BUILD.all("COPY") for source in rest.split()[:-1]]
    assert all((tmp_path / source).exists() for source in copied), copied
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    needed = [
        *project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"],
        *project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"],
        *project["project"]["license-files"],
        project["project"]["readme"],
        "constraints.txt",
    ]
    for name in needed:
        assert any(Path(name).is_relative_to(source) for source in copied), name
        assert (tmp_path / name).exists(), name
    assert {path.name for path in tmp_path.iterdir()} == {
        "pyproject.toml",
        "constraints.txt",
        "README.md",
        "LICENSE",
        "avro",
        "worker",
    }


def test_both_stages_have_the_base_that_one_argument_names() -> None:
    """One digest pins the build; the interpreter that was installed into is the one that runs."""
    assert (BUILD.base, FINAL.base) == ("${BASE}", "${BASE}")
    assert re.fullmatch(r"python:3\.\d+-slim(@sha256:[0-9a-f]{64})?", ARGUMENTS["BASE"])
    assert "--build-arg BASE=" in DOCKERFILE


def test_extras_are_an_argument_with_parquet_in_it() -> None:
    """The default is an extra that exists."""
    assert BUILD.all("ARG") == ["EXTRAS=parquet"]
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "parquet" in extras


def test_the_final_stage_runs_as_nobody_in_particular() -> None:
    """The user is a number, so that Kubernetes can see that it is not root, in the folder that belongs
    to it."""
    (user,) = FINAL.all("USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    uid, gid = user.split(":")
    (created,) = FINAL.all("RUN")
    assert f"--uid {uid} --gid {gid}" in created
    (folder,) = FINAL.all("WORKDIR")
    assert f"install --directory --owner {uid} --group {gid} {folder}" in created


def test_the_final_stage_gets_signals_and_has_a_command() -> None:
    """The worker is process 1, without a shell before it."""
    assert json.loads(FINAL.all("ENTRYPOINT")[0]) == ["flagstream"]
    assert json.loads(FINAL.all("CMD")[0]) == ["run"]
    assert FINAL.all("STOPSIGNAL") == ["SIGTERM"]


def test_the_final_stage_has_no_pip() -> None:
    """Neither the base image's own, nor one in the environment that is copied."""
    (created,) = FINAL.all("RUN")
    assert re.search(r"pip uninstall --yes .*\bpip\b", created)
    assert "ensurepip" in created
    assert any("venv --without-pip" in run for run in BUILD.all("RUN"))


def test_the_final_stage_copies_what_was_built_and_nothing_else() -> None:
    """The second stage copies from the first stage, to the same place, since scripts in it name their
    interpreter by its path."""
    assert FINAL.all("COPY") == ["--from=build /opt/flagstream /opt/flagstream"]
    assert BUILD.name == "build"
    assert environment(FINAL)["PATH"].startswith("/opt/flagstream/bin:")
    assert not FINAL.all("ADD") + BUILD.all("ADD")


def test_the_final_stage_says_what_it_is() -> None:
    """It uses the names that registries and scanners read."""
    labels = {name: value for rest in FINAL.all("LABEL") for name, value in assignments(rest).items()}
    assert {
        f"org.opencontainers.image.{name}" for name in ("title", "description", "licenses", "revision")
    } == labels.keys()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert labels["org.opencontainers.image.licenses"] == project["license"]


def test_variables_of_the_image_are_settings_that_are_accepted() -> None:
    """The port is the one that the worker listens on, at all addresses."""
    variables = {
        name: value
        for name, value in environment(FINAL).items()
        if name.startswith("FLAGSTREAM_") and name != "FLAGSTREAM_CONFIG"
    }
    settings = load(None, {**variables, "FLAGSTREAM_FLAGS__PATH": "flags.yaml"})
    assert (settings.web.host, FINAL.all("EXPOSE")) == ("*", [str(settings.web.port)])


def manifests() -> dict[str, Any]:
    documents = yaml.safe_load_all((REPOSITORY / "deploy/kubernetes.yaml").read_text())
    return {document["kind"]: document for document in documents}


def test_the_manifest_fits_the_image() -> None:
    """User, group, folders, port, and where the configuration is."""
    pod = manifests()["StatefulSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    security = pod["securityContext"]
    assert f"{security['runAsUser']}:{security['runAsGroup']}" == FINAL.all("USER")[0]
    assert str(container["ports"][0]["containerPort"]) == FINAL.all("EXPOSE")[0]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert FINAL.all("WORKDIR")[0] in mounts
    assert str(Path(environment(FINAL)["FLAGSTREAM_CONFIG"]).parent) in mounts
    assert container["image"].startswith("flagstream:")


def test_the_manifest_keeps_service_variables_away() -> None:
    """A Service called flagstream would set FLAGSTREAM_PORT in each pod."""
    found = manifests()
    assert found["StatefulSet"]["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_the_parts_of_the_manifest_belong_together() -> None:
    """Names, selectors, volumes and claims that are referred to are there."""
    found = manifests()
    workload = found["StatefulSet"]["spec"]
    labels = workload["template"]["metadata"]["labels"]
    assert workload["serviceName"] == found["Service"]["metadata"]["name"]
    assert workload["selector"]["matchLabels"].items() <= labels.items()
    assert found["Service"]["spec"]["selector"].items() <= labels.items()
    pod = workload["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == volumes.keys()
    claims = {
        each["persistentVolumeClaim"]["claimName"]
        for each in volumes.values()
        if "persistentVolumeClaim" in each
    }
    assert claims == {found["PersistentVolumeClaim"]["metadata"]["name"]}
    maps = {each["configMap"]["name"] for each in volumes.values() if "configMap" in each}
    assert maps == {found["ConfigMap"]["metadata"]["name"]}
    probes = {pod["containers"][0][f"{kind}Probe"]["httpGet"]["path"] for kind in ("liveness", "readiness")}
    assert probes == {"/live", "/ready"}


@pytest.mark.parametrize("service", ["kafka", "kafka-topics", "s3"])
def test_compose_images_have_a_version(service: str) -> None:
    """The latest of today is another one tomorrow."""
    compose = yaml.safe_load((REPOSITORY / "docker-compose.kafka.yml").read_text())
    assert re.search(r":\d[\w.]*$", compose["services"][service]["image"])


def test_compose_volumes_and_dependencies_are_there() -> None:
    """What a service mounts or waits for is declared."""
    compose = yaml.safe_load((REPOSITORY / "docker-compose.kafka.yml").read_text())
    services = compose["services"]
    mounted = {volume.split(":")[0] for each in services.values() for volume in each.get("volumes", [])}
    assert mounted == compose["volumes"].keys()
    for each in services.values():
        for name, condition in each.get("depends_on", {}).items():
            assert condition["condition"] == "service_healthy"
            assert "healthcheck" in services[name]
