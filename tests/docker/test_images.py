"""What the images install: locked, no more than needed, and named."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docker.support import DOCKER, DOCKERFILES, ROOT, SCRIPTS


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_pass_hadolint(path: Path) -> None:
    ran = subprocess.run(
        [SCRIPTS / "hadolint", "--no-color", path],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_dockerfiles_copy_is_there_and_not_ignored(path: Path) -> None:
    allowed = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.M))
    for line in re.findall(r"^COPY (?!--from)(.*)$", path.read_text(), re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert source in allowed, source


def test_images_install_one_torch_that_the_project_allows() -> None:
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    wanted = {
        r.name: r.specifier for r in map(Requirement, requires("expertfleet") or [])
    }
    versions = [
        dict(re.findall(r"^ARG (TORCH|TORCHVISION)=(\S+)$", path.read_text(), re.M))
        for path in DOCKERFILES
    ]
    assert versions[0] == versions[1]
    assert versions[0]["TORCH"] in wanted["torch"]
    assert versions[0]["TORCHVISION"] in wanted["torchvision"]


def test_a_device_needs_nothing_of_a_server() -> None:
    """All that ``client_app`` imports comes with the plain package."""
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; import client_app.app, client_app.__main__; "
            "print(*{n.partition('.')[0] for n in sys.modules})",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
        cwd=ROOT,
    ).stdout.split()
    assert not {"ray", "ortools", "numba", "server_app"} & set(loaded)
    assert "torch" in loaded


def test_a_server_without_its_extra_says_what_to_install(tmp_path: Path) -> None:
    arguments = ["simulate", "--run-config", f'output-dir="{tmp_path}"']
    code = (
        "import sys; sys.modules['ortools'] = None; "
        f"from server_app.__main__ import main; sys.exit(main({arguments!r}))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
    )
    assert ran.returncode == 2
    last = ran.stderr.splitlines()[-1]
    assert last == "error: ortools is missing: pip install 'expertfleet[server]'"


def test_every_package_of_the_lock_has_its_hashes() -> None:
    text = (ROOT / "constraints.txt").read_text()
    pins = re.findall(r"^\S.*\n(?:[ \t].*\n)*", text, re.MULTILINE)
    assert len(pins) > 100
    for pin in pins:
        assert re.match(r"[a-z0-9._-]+==\S+", pin), pin
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", pin), pin
    assert "://" not in text


def test_an_image_installs_what_is_locked_but_torch(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    command = [sys.executable, str(DOCKER / "requirements.py"), "server"]
    subprocess.run(command, check=True, cwd=tmp_path, timeout=60)
    wanted, kept, uv = (
        (tmp_path / "out" / f"{name}.txt").read_text()
        for name in ("requirements", "constraints", "uv")
    )
    assert "ortools" in wanted
    assert not re.search(r"^torch(vision)?==", kept, re.MULTILINE)
    locked = (ROOT / "constraints.txt").read_text()
    assert kept.count("--hash") == locked.count("--hash") - sum(
        block.count("--hash")
        for block in re.findall(r"^torch(?:vision)?==.*\n(?:[ \t].*\n)*", locked, re.M)
    )
    assert uv.startswith("uv==") and "--hash=sha256:" in uv
    assert sum(not line.startswith(" ") for line in uv.splitlines()) == 1


def test_a_bill_of_materials_names_every_package() -> None:
    lines = (
        "pypi\tTyping_Extensions\t4.1\tPSF-2.0\n"
        "deb\tlibc6\t2.36-9+deb12u1\t\npypi\tnumpy\t2.1\t\npypi\tnumpy\t2.1\t\n"
    )
    ran = subprocess.run(
        [sys.executable, DOCKER / "sbom.py", "expertfleet-device", "sha256:ab"],
        input=lines,
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    bill = json.loads(ran.stdout)
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["version"] == "sha256:ab"
    assert [each["purl"] for each in bill["components"]] == [
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u1",
        "pkg:pypi/typing-extensions@4.1",
        "pkg:pypi/numpy@2.1",
    ]
    assert bill["components"][1]["licenses"] == [{"expression": "PSF-2.0"}]


def bill_where(run: str, place: Path) -> "subprocess.CompletedProcess[str]":
    """Run sbom.sh where `docker run` is these lines of shell."""
    docker = place / "docker"
    docker.write_text(
        f"#!/bin/sh\ncase $1 in\nimage) echo sha256:ab ;;\nrun) {run} ;;\nesac\n"
    )
    docker.chmod(0o755)
    return subprocess.run(
        [DOCKER / "sbom.sh", "an-image"],
        env={**os.environ, "PATH": f"{place}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="needs dpkg-query")
def test_the_bill_of_materials_is_asked_of_the_image(tmp_path: Path) -> None:
    # What docker would run in the container, run here.
    here = 'while [ "$1" != -c ]; do shift; done; sh -c "$2"'
    ran = bill_where(here, tmp_path)
    assert ran.returncode == 0, ran.stderr
    purls = {each["purl"] for each in json.loads(ran.stdout)["components"]}
    assert any(purl.startswith("pkg:deb/debian/dpkg@") for purl in purls)


def test_there_is_no_bill_of_materials_of_half_an_image(tmp_path: Path) -> None:
    ran = bill_where('printf "deb\\tlibc6\\t2.36\\t\\n"; exit 125', tmp_path)
    assert ran.returncode != 0
    assert not ran.stdout
