"""``expertfleet`` in a shell: completion, and a Python that lacks its packages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from expertfleet.cli import main
from tests.conftest import REPOSITORY

PROGRAM = Path(sys.executable).with_name("expertfleet")


def completed(words: str) -> list[str]:
    """Return what bash is offered for the last of some words."""
    found = subprocess.run(
        [PROGRAM],
        env={
            **os.environ,
            "_EXPERTFLEET_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    assert found.stderr == ""
    return found.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("expertfleet sim", ["simulate"]),
        ("expertfleet simulate --cl", ["--clients"]),
        ("expertfleet fleet sta", ["status"]),
    ],
)
def test_a_shell_completes_commands_and_options(words: str, offered: list[str]) -> None:
    assert completed(words) == offered


def test_the_script_for_a_shell_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    done = subprocess.run(
        [PROGRAM, "--show-completion", "bash"],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    assert "complete -o default -F _expertfleet_completion expertfleet" in done.stdout


@pytest.mark.parametrize("package", ["expertfleet", "server_app", "client_app"])
def test_a_python_without_the_packages_says_so_in_one_line(package: str) -> None:
    done = subprocess.run(
        # -S: without site-packages, as the system's own Python.
        [sys.executable, "-S", "-m", package, "simulate"],
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=600,
    )
    [line] = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert line.startswith(f"error: click is missing for {sys.executable}: activate")


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("ortools.sat", "error: ortools is missing: pip install 'expertfleet[server]'"),
        ("scipy", "error: scipy is missing: pip install 'expertfleet'"),
    ],
)
def test_a_package_that_is_not_here_is_named_with_its_extra(
    missing: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: str) -> None:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr("common.commands.import_module", fail)
    assert main(["simulate"]) == 2
    assert capsys.readouterr().err.splitlines() == [said]


def test_a_module_of_ours_that_is_not_there_is_our_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: str) -> None:
        raise ModuleNotFoundError("x", name="server_app.gone")

    monkeypatch.setattr("common.commands.import_module", fail)
    with pytest.raises(ModuleNotFoundError):
        main(["simulate"])


def test_help_and_completion_need_not_load_torch() -> None:
    """They are asked for all the time, and torch takes seconds."""
    program = """
import sys
from importlib import import_module
from client_app.__main__ import COMMANDS as device
from expertfleet.cli import COMMANDS
sys.modules["torch"] = None
modules = {module for module, _ in [*COMMANDS.values(), *device.values()]}
for module in modules - {"server_app.commands.list_strategies"}:
    import_module(module)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600)
