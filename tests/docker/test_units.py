"""The systemd units, as far as systemd itself can check them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from server_app.__main__ import main
from tests.docker.support import DOCKER, UNITS, unit

EXPOSURE = 2.5
"""The most that ``systemd-analyze security`` may find, of 10."""

needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="needs systemd-analyze"
)


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Every unit of the project, those that `fleet init` writes included."""
    fleet = tmp_path_factory.mktemp("units") / "fleet"
    for host in ("fleet.example:8000", "fleet.example:443"):
        arguments = ["init", "--host", "fleet.example", "--superlink", host]
        assert main(["fleet", "--dir", str(fleet), *arguments]) == 0
    written = sorted((fleet / "systemd").iterdir())
    assert len(written) == 3
    return [*UNITS, *written]


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_units(units: list[Path]) -> None:
    expected = (
        "is not executable",
        # Keys of systemd 254 that an older one passes over.
        "Unknown key 'RestartSteps' in section [Service]",
        "Unknown key 'RestartMaxDelaySec' in section [Service]",
    )
    for path in units:
        said = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", path],
            capture_output=True,
            text=True,
            timeout=600,
        ).stderr
        complaints = [
            line
            for line in said.splitlines()
            if path.name in line and not any(each in line for each in expected)
        ]
        assert not complaints


@needs_systemd
def test_units_are_closed_as_far_as_systemd_can_see(units: list[Path]) -> None:
    for path in units:
        ran = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--no-pager", path],
            capture_output=True,
            text=True,
            timeout=600,
        )
        found = re.search(r"exposure level for \S+: ([\d.]+)", ran.stdout)
        assert found, ran.stdout + ran.stderr
        assert float(found[1]) <= EXPOSURE, f"{path.name}: {found[1]}"


def test_who_trains_is_not_who_owns_the_device_s_key() -> None:
    device = unit(DOCKER / "expertfleet-device.service")
    trainer = unit(DOCKER / "expertfleet-trainer.service")
    assert device["User"] != trainer["User"]
    # What `supernode` is told to do it passes on: nobody else is to be told.
    assert device["KillMode"] == "mixed"
    assert "--isolation=process" in device["ExecStart"]
    assert "/etc/expertfleet" not in trainer["ExecStart"]
    assert trainer["InaccessiblePaths"] == "-/etc/expertfleet"
    assert "--superexec-auth-secret-file" in trainer["ExecStart"]
