"""The files under docker/, read for their tests."""

import configparser
import io
import re
import subprocess
import sysconfig
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
SCRIPTS = Path(sysconfig.get_path("scripts"))
COMPOSE = sorted(DOCKER.glob("compose.*.yaml"))
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
UNITS = sorted(DOCKER.glob("*.service"))

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


def unit(path: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text().replace("\\\n", " "))
    return parser["Service"]


@cache
def options(program: tuple[str, ...]) -> frozenset[str]:
    """The long options that a program's own help names; ours is asked in process."""
    if program[1:2] == ("-m",):
        said = io.StringIO()
        ours = import_module(f"{program[2]}.__main__")
        with redirect_stdout(said):
            assert ours.main([*program[3:], "--help"]) == 0
        text = said.getvalue()
    else:
        command = [*program, "--help"]
        text = subprocess.run(
            command, capture_output=True, text=True, timeout=600, check=True
        ).stdout
    return frozenset(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


def flags(arguments: Command) -> list[str]:
    own = arguments[: list(arguments).index("--")] if "--" in arguments else arguments
    return [word.partition("=")[0] for word in own if word.startswith("--")]
