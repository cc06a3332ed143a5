"""A place where the commands of a page are typed."""

import os
import runpy
import shlex
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path

import pytest

import client_app.__main__
import expertfleet.cli
import server_app.__main__
from tests.conftest import REPOSITORY
from tests.ports import free_port
from tests.programs import run_program

PORTS = ("50051", "9464")
"""Which pages serve at: answers, and metrics."""

SHORT = "num-rounds=2"
"""What is laid over the settings of every run: what is learnt is not looked at."""

MAKE_SITES = "examples/own_data/make_sites.py"

PROGRAMS: dict[tuple[str, ...], Callable[[list[str]], int]] = {
    ("expertfleet",): expertfleet.cli.main,
    ("python", "-m", "server_app"): server_app.__main__.main,
    ("python", "-m", "client_app"): client_app.__main__.main,
    ("python", MAKE_SITES): runpy.run_path(str(REPOSITORY / MAKE_SITES))["main"],
}


class Desk:
    """One directory and its shell.

    Our own commands run in this process, since starting one takes longer than what it
    does; a pipe, a loop or any other program runs in a real one. ``make simulate``
    runs what Flower would, without Flower: the results are the same.

    Parameters
    ----------
    place : Path
        An empty directory.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self._ports = {printed: str(free_port()) for printed in PORTS}
        self._served: list[subprocess.Popen[str]] = []
        for name in ("examples", "docker", "benchmarks", "docs"):
            (place / name).symlink_to(REPOSITORY / name)
        scripts = Path(sys.executable).parent
        self._env = {
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
        }

    def close(self) -> None:
        """End what still runs; a service that does not end well is a failure."""
        while self._served:
            process = self._served.pop()
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=60)
            assert process.returncode == 0, said

    def shell(self, text: str) -> str:
        """Type the commands of a block; return what they print."""
        commands = list(commands_of(text))
        if any(map(of_a_script, commands)):
            return self._bash(text)
        return "".join(self._one(command) for command in commands)

    def python(self, text: str) -> str:
        """Execute a block in a namespace of its own."""
        code = compile(self._ported(text), "block", "exec")

        def run() -> int:
            exec(code, {"__name__": "__main__"})
            return 0

        return self._here(run)

    def _one(self, command: str) -> str:
        if not plain(command):
            return self._bash(command)
        words = shlex.split(command, comments=True)
        if words[:2] == ["python", "-c"]:
            return self.python(words[2])
        if words[:2] == ["make", "simulate"]:
            words = simulate(words[2:])
        for start, main in PROGRAMS.items():
            if tuple(words[: len(start)]) == start:
                rest = words[len(start) :]
                if rest[:1] == ["serve"]:
                    return self._serve(words)
                if rest[0] == "sweep":  # has processes of its own
                    return self._bash(shlex.join([*words, "--run-config", SHORT]))
                if rest[0] == "simulate":
                    rest += ["--run-config", SHORT]
                return self._here(partial(main, rest), command)
        return self._bash(command)

    def _here(self, action: Callable[[], int], what: str = "block") -> str:
        out, err = StringIO(), StringIO()
        with ExitStack() as stack:
            stack.enter_context(chdir(self.place))
            stack.enter_context(redirect_stdout(out))
            stack.enter_context(redirect_stderr(err))
            try:
                code = action()
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 1
            except Exception:
                err.write(traceback.format_exc())
                code = 1
        if code:
            pytest.fail(f"{what}\n\nexit code {code}\n{out.getvalue()}{err.getvalue()}")
        self._name_the_run()
        return out.getvalue()

    def _bash(self, text: str) -> str:
        command = ["bash", "-euo", "pipefail", "-c", text]
        done = run_program(command, self.place, timeout=200, **self._env)
        if done.returncode:
            pytest.fail(f"{text}\n\nexit code {done.returncode}\n{done.stderr}")
        self._name_the_run()
        return done.stdout

    def _serve(self, words: list[str]) -> str:
        """Start a service in place of the last, and wait until it listens."""
        self.close()
        here = [self._ported(word) for word in words]
        process = subprocess.Popen(
            here,
            cwd=self.place,
            env={**os.environ, **self._env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._served.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert self._ports[PORTS[0]] in line and "error" not in line, line
        return line

    def _ported(self, text: str) -> str:
        for printed, free in self._ports.items():
            text = text.replace(printed, free)
        return text

    def _name_the_run(self) -> None:
        results = self.place / "results"
        if not results.is_dir():
            return
        name = results / "RUN"
        runs = [run for run in results.iterdir() if run != name]
        if runs:
            name.unlink(missing_ok=True)
            name.symlink_to(max(runs, key=lambda run: run.stat().st_mtime).name)


def commands_of(text: str) -> Iterator[str]:
    """Yield the commands of a block, each with the lines it goes on over."""
    pending = ""
    for line in text.splitlines():
        pending += line
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:  # within quotes
            pending += "\n"
            continue
        if words:
            yield pending
        pending = ""
    assert not pending, pending


def plain(command: str) -> bool:
    """Whether a command is one program with its arguments, without a shell's signs."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    signs = any(set(word) <= set("|&;<>()") for word in words)
    return "=" not in words[0] and not signs and "$" not in command


def of_a_script(command: str) -> bool:
    """Whether the commands after this one would miss it in a shell of their own."""
    words = command.split()
    return words[0] in {"for", "while", "if", "cd", "export", "alias"} or (
        words[-1] == "&"
    )


def simulate(settings: list[str]) -> list[str]:
    """Return the command that trains here what ``make simulate`` trains with Flower."""
    given = dict(word.partition("=")[::2] for word in settings)
    words = ["expertfleet", "simulate", "--run-config", given.pop("RUN_CONFIG", "")]
    if clients := given.pop("CLIENTS", None):
        words += ["--clients", clients]
    assert not given, f"make simulate knows no {sorted(given)}"
    return words
