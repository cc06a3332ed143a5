"""What the project says of itself, in several files, is the same in all of them."""

import tomllib
from pathlib import Path

import yaml

import common

ROOT = Path(__file__).resolve().parents[1]


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert common.__version__ == project["version"] == citation["version"]
    assert f"\n## {project['version']}" in changes


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 900


def test_types_are_for_users_as_well() -> None:
    for package in ("common", "server_app", "client_app"):
        assert (ROOT / package / "py.typed").is_file()


def test_ci_tries_every_python_and_flower_that_is_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    oldest = project["requires-python"].removeprefix(">=")
    assert jobs["pythons"]["strategy"]["matrix"]["python"][0] == oldest
    assert ".ci/run" in str(jobs["all"]["steps"])
    assert "flwr==1.42.0" in str(jobs["versions"])
    assert "flwr>=1.41,<1.43" in project["dependencies"]
