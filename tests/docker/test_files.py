"""The files under docker/, as far as they can be checked without a container engine.

That every flag they pass is one that the installed programs know matters most: Flower
renames flags between releases, and a container that does not start says so far away.
"""

import configparser
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
SCRIPTS = Path(sysconfig.get_path("scripts"))
COMPOSE = sorted(DOCKER.glob("compose.*.yaml"))
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
UNIT = DOCKER / "expertfleet-device.service"

Command = Sequence[str]


class ComposeLoader(yaml.SafeLoader):
    """Reads compose files, whose own tags say how to merge."""


ComposeLoader.add_multi_constructor(
    "!",
    lambda loader, _, node: (
        loader.construct_mapping(node, deep=True)
        if isinstance(node, yaml.MappingNode)
        else loader.construct_sequence(node, deep=True)
    ),
)


def compose(path: Path) -> dict[str, Any]:
    loaded = yaml.load(path.read_text(), ComposeLoader)
    assert isinstance(loaded, dict)
    return loaded


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return parser


def commands() -> Iterator[tuple[str, Command]]:
    """Every command line of a container, of the unit and for the operator."""
    for path in COMPOSE:
        for name, service in compose(path)["services"].items():
            if "command" in service:
                yield f"{path.name}:{name}", service["command"]
    yield UNIT.name, shlex.split(unit()["Service"]["ExecStart"])
    for path in (DOCKER / "demo.sh", DOCKER / "README.md"):
        text = path.read_text().replace("\\\n", " ")
        for line in re.findall(r"\boperator (python .*)$", text, re.MULTILINE):
            yield path.name, shlex.split(line)


COMMANDS = list(commands())


@cache
def options(program: tuple[str, ...]) -> frozenset[str]:
    """The long options that a program's own help names."""
    said = subprocess.run(
        [*program, "--help"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=ROOT,
    )
    return frozenset(re.findall(r"(?<![\w-])--[a-z][a-z-]*", said.stdout))


def split(command: Command) -> Iterator[tuple[tuple[str, ...], Command]]:
    """Every program that a command line calls, with its own arguments."""
    words = list(command)
    if Path(words[0]).name != "python":
        yield (str(SCRIPTS / words[0]),), words[1:]
    elif words[2:4] == ["client_app", "supernode"]:
        end = words.index("--") if "--" in words else len(words)
        yield (sys.executable, *words[1:4]), words[4:end]
        yield (str(SCRIPTS / "flower-supernode"),), words[end + 1 :]
    else:  # python -m server_app fleet ACTION
        yield (sys.executable, *words[1:5]), words[5:]


def flags(arguments: Command) -> list[str]:
    return [word.partition("=")[0] for word in arguments if word.startswith("--")]


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
    server = compose(DOCKER / "compose.server.yaml")["services"]
    link = flags(server["superlink"]["command"])
    assert {"--enable-supernode-auth", "--ssl-certfile"} <= set(link)
    assert "--insecure" not in link
    assert "ports" not in server["superlink"]
    assert server["superlink"]["networks"] == ["backend"]
    # Neither code that was submitted nor a device gets at a key that is not its own.
    assert "secrets" not in server["superexec"]
    device = compose(DOCKER / "compose.device.yaml")
    bundled = [s for s in device["services"].values() if "/bundle" in str(s["volumes"])]
    assert bundled == [device["services"]["supernode"]]
    assert device["networks"]["app"]["internal"]


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_containers_run_with_as_little_as_they_need(path: Path) -> None:
    for name, service in compose(path)["services"].items():
        if "extends" in service:
            continue
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"] == "${RUN_AS:-1000:1000}", name


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_pass_hadolint(path: Path) -> None:
    ran = subprocess.run(
        [SCRIPTS / "hadolint", "--no-color", path],
        capture_output=True,
        text=True,
        timeout=60,
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
        timeout=120,
        cwd=ROOT,
    ).stdout.split()
    assert not {"ray", "ortools", "numba", "server_app"} & set(loaded)
    assert "torch" in loaded


@pytest.mark.parametrize(
    ("missing", "settings"),
    [("ortools", ""), ("numba", "expert-hidden=4000 num-rounds=1 train-samples=100")],
)
def test_a_server_without_its_extra_says_what_to_install(
    missing: str, settings: str, tmp_path: Path
) -> None:
    # Numba is for large parts only: experts of 4 000 x (64 + 10) weights are.
    arguments = ["simulate", "--run-config", f'{settings} output-dir="{tmp_path}"']
    code = (
        f"import sys; sys.modules[{missing!r}] = None; "
        f"from server_app.__main__ import main; sys.exit(main({arguments!r}))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert ran.returncode == 2
    last = ran.stderr.splitlines()[-1]
    assert last == f"error: {missing} is missing: pip install 'expertfleet[server]'"


@pytest.mark.parametrize("path", [*DOCKER.glob("*.sh")], ids=lambda path: path.name)
def test_shell_scripts_parse(path: Path) -> None:
    subprocess.run(["sh", "-n", path], check=True, timeout=10)


def test_the_installer_passes_flags_that_uv_knows() -> None:
    text = (DOCKER / "install.sh").read_text().replace("\\\n", " ")
    calls = re.findall(r"^\$uv (venv|pip install) (.*)$", text, re.MULTILINE)
    assert len(calls) == 3
    for command, rest in calls:
        used = set(re.findall(r"--[a-z][a-z-]+", rest))
        assert used <= options((str(SCRIPTS / "uv"), *command.split())), command


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_unit() -> None:
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", UNIT],
        capture_output=True,
        text=True,
        timeout=60,
    ).stderr
    expected = (
        "Command /opt/expertfleet/bin/python is not executable",
        # Keys of systemd 254 that an older one passes over.
        "Unknown key 'RestartSteps' in section [Service]",
        "Unknown key 'RestartMaxDelaySec' in section [Service]",
    )
    complaints = [
        line
        for line in said.splitlines()
        if UNIT.name in line and not any(each in line for each in expected)
    ]
    assert not complaints


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
