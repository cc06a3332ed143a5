"""Compose files: what containers may do and need."""

import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docker.support import COMPOSE, DOCKER, ROOT, compose


def test_the_operator_needs_no_checkout() -> None:
    operator = compose(DOCKER / "compose.server.yaml")["services"]["operator"]
    assert not [v for v in operator["volumes"] if v.startswith("..:")]
    copied = (DOCKER / "server.Dockerfile").read_text()
    for source in ("pyproject.toml", "README.md", "LICENSE", "server_app"):
        assert re.search(rf"^COPY .*\b{re.escape(source)}\b", copied, re.MULTILINE)


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_containers_run_with_as_little_as_they_need(path: Path) -> None:
    for name, service in compose(path)["services"].items():
        if "extends" in service:
            continue
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"] == "${RUN_AS:-1000:1000}", name
        assert service["pids_limit"] <= 1024, name
        assert service["mem_limit"] == service["memswap_limit"], name
        assert all("size=" in each for each in service["tmpfs"]), name
        assert service["logging"]["options"]["max-size"], name


def test_the_demo_s_devices_have_limits_of_their_own() -> None:
    services = compose(DOCKER / "compose.demo.yaml")["services"]
    for name, service in services.items():
        if name.endswith("superexec"):
            assert service["mem_limit"] == service["memswap_limit"], name


def test_the_demo_s_devices_have_data_of_their_own_and_the_server_none() -> None:
    services = compose(DOCKER / "compose.demo.yaml")["services"]
    data = {
        each
        for service in services.values()
        for each in service["volumes"]
        if each.endswith(":/data:ro")
    }
    make_sites = runpy.run_path(str(ROOT / "examples/own_data/make_sites.py"))
    sites = {f"{name}}}:/data:ro" for name in make_sites["CAMERAS"]}
    assert {each.rpartition("/sites/")[2] for each in data} == sites
    script = (DOCKER / "demo.sh").read_text()
    assert "fleet add --data-path /data" in script
    assert "--size" not in script
    server = compose(DOCKER / "compose.server.yaml")["services"]
    mounted = str(server["superexec"]["volumes"])
    assert ":/task.toml:ro" in mounted
    assert "demo-data" not in str(server)


@pytest.fixture
def compose_plugin() -> None:
    docker = shutil.which("docker")
    found = (
        docker
        and not subprocess.run(
            [docker, "compose", "version"], capture_output=True, timeout=60
        ).returncode
    )
    if not found:
        pytest.skip("needs docker with compose")


@pytest.mark.usefixtures("compose_plugin")
@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose_accepts_its_files(path: Path) -> None:
    ran = subprocess.run(
        ["docker", "compose", "--file", path, "config", "--quiet"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
