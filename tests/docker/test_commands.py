"""Command lines of containers, units and the operator.

That every flag they pass is one that the installed programs know matters most: Flower
renames flags between releases, and a container that does not start says so far away.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server_app.provisioning.members import Members
from server_app.provisioning.server_files import server_files
from tests.docker.support import (
    COMPOSE,
    DOCKER,
    SCRIPTS,
    UNITS,
    Command,
    compose,
    flags,
    options,
    unit,
)


def commands() -> Iterator[tuple[str, Command]]:
    """Every command line of a container, of the unit and for the operator."""
    for path in COMPOSE:
        for name, service in compose(path)["services"].items():
            if "command" in service:
                yield f"{path.name}:{name}", service["command"]
    for path in UNITS:
        yield path.name, shlex.split(unit(path)["ExecStart"])
        if before := unit(path).get("ExecStartPre"):
            yield f"{path.name}:before", shlex.split(before.removeprefix("-"))
    members = Members(
        superlink="fleet.example:8000",
        control="127.0.0.1:8001",
        hosts=("fleet.example",),
        size=1,
    )
    for name, content in server_files(members, Path("/fleet")):
        if name.endswith(".service"):
            joined = content.decode().replace("\\\n", " ")
            [line] = re.findall(r"^ExecStart=(.*)$", joined, re.MULTILINE)
            if "nginx" not in line:
                yield name, shlex.split(line)
    script = (DOCKER / "doctor-first.sh").read_text()
    [line] = re.findall(r"^(python .*) \|\| true$", script, re.MULTILINE)
    yield "doctor-first.sh", shlex.split(line)
    for path in (DOCKER / "demo.sh", DOCKER / "README.md"):
        text = path.read_text().replace("\\\n", " ")
        for line in re.findall(r"\boperator (python .*)$", text, re.MULTILINE):
            yield path.name, shlex.split(line)


COMMANDS = list(commands())

PASSED_ON = {"supernode": "flower-supernode", "trainer": "flower-superexec"}
"""Commands of ours, and whose flags follow a ``--``."""


def split(command: Command) -> Iterator[tuple[tuple[str, ...], Command]]:
    """Every program that a command line calls, with its own arguments."""
    words = list(command)
    if Path(words[0]).name != "python":
        yield (str(SCRIPTS / Path(words[0]).name),), words[1:]
    elif words[2] == "client_app" and words[3] in PASSED_ON:
        end = words.index("--") if "--" in words else len(words)
        yield (sys.executable, *words[1:4]), words[4:end]
        yield (str(SCRIPTS / PASSED_ON[words[3]]),), words[end + 1 :]
    elif words[2] == "client_app":
        yield (sys.executable, *words[1:4]), words[4:]
    else:  # python -m server_app fleet ACTION
        yield (sys.executable, *words[1:5]), words[5:]


@pytest.mark.parametrize(
    ("where", "command"), COMMANDS, ids=[where for where, _ in COMMANDS]
)
def test_every_flag_is_one_the_installed_program_knows(
    where: str, command: Command
) -> None:
    for program, arguments in split(command):
        unknown = set(flags(arguments)) - options(program)
        assert not unknown, f"{where}: {program} has no {sorted(unknown)}"


def test_the_flags_that_keep_the_fleet_closed_are_there() -> None:
    server = compose(DOCKER / "compose.server.yaml")
    services = server["services"]
    link = flags(services["superlink"]["command"])
    secret = "--superexec-auth-secret-file"
    assert {"--enable-supernode-auth", "--ssl-certfile", secret} <= set(link)
    assert "--insecure" not in link
    assert [name for name, each in services.items() if "ports" in each] == ["proxy"]
    assert services["superlink"]["networks"] == ["backend"]
    # Code that was submitted gets at no key and does not reach the Control API.
    assert services["superexec"]["secrets"] == ["superexec.secret"]
    assert services["superexec"]["networks"] == ["runtime"]
    assert "runtime:8000" in str(services["superexec"]["command"])
    assert all(server["networks"][name]["internal"] for name in ("backend", "runtime"))
    device = compose(DOCKER / "compose.device.yaml")
    bundled = [s for s in device["services"].values() if ":/bundle" in str(s)]
    assert bundled == [device["services"]["supernode"]]
    assert secret in str(device["services"]["superexec"]["command"])
    assert device["networks"]["app"]["internal"]


def test_the_installer_passes_flags_that_uv_knows() -> None:
    text = (DOCKER / "install.sh").read_text().replace("\\\n", " ")
    calls = re.findall(r"^\$uv (venv|pip install) (.*)$", text, re.MULTILINE)
    assert len(calls) == 3
    for command, rest in calls:
        used = set(re.findall(r"--[a-z][a-z-]+", rest))
        assert used <= options((str(SCRIPTS / "uv"), *command.split())), command


@pytest.mark.parametrize("path", [*DOCKER.glob("*.sh")], ids=lambda path: path.name)
def test_shell_scripts_parse(path: Path) -> None:
    subprocess.run(["sh", "-n", path], check=True, timeout=10)
