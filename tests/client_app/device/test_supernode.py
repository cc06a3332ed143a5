"""A device that the server will not have: one line says why, and no exit code 0."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from client_app.device import supernode
from client_app.device.supernode import main
from client_app.device.unpacked_bundle import Bundle, owner_config
from common.chunks import VARIABLE
from tests.client_app.device.fake_superlink import FakeSuperLink, answering

ROOT = Path(__file__).resolve().parents[3]


def started(folder: Path, *flags: str) -> int:
    return main(folder, owner_config(folder / "state"), flags)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, in no time."""
    made: list[float] = []
    monkeypatch.setattr(time, "sleep", made.append)
    return made


@pytest.fixture
def with_data(bundle: Bundle) -> Bundle:
    data = Path(str(bundle.node["data-path"]))
    data.mkdir()
    (data / "samples.csv").touch()
    return bundle


@pytest.mark.usefixtures("superlink")
def test_a_wrong_clock_is_waited_for_and_said_once(
    with_data: Bundle,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(FakeSuperLink, "ahead", 3600.0)

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 7:
            monkeypatch.setattr(FakeSuperLink, "ahead", 0.0)

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(supernode, "run_program", lambda *_: (0, True))
    assert started(with_data.folder) == 0
    assert pauses == [2, 4, 8, 16, 32, 60, 60]
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("waiting: this device's clock is 60 minutes behind")


def test_a_server_that_comes_later_than_the_device_is_waited_for(
    with_data: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    keys = with_data.folder.parent / "fleet"
    port = int(with_data.superlink.rpartition(":")[2])
    monkeypatch.setattr(supernode, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(supernode, "REMINDER", 0.0)
    monkeypatch.setattr(supernode, "run_program", lambda *_: (7, False))
    said = []
    sleep = time.sleep

    def at_the_second(seconds: float) -> None:
        said.append(seconds)
        if len(said) == 2:
            server.__enter__()
        sleep(seconds)

    server = answering(keys / "server.pem", keys / "server.key", port)
    monkeypatch.setattr(time, "sleep", at_the_second)
    assert started(with_data.folder) == 7
    server.__exit__(None, None, None)
    first, second = capsys.readouterr().err.splitlines()
    assert first == second
    assert first.startswith(f"waiting: {with_data.superlink} does not answer")


@pytest.mark.usefixtures("superlink")
def test_what_does_not_pass_ends_the_device_in_one_sentence(
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        supernode, "run_program", lambda *_: pytest.fail("it was started")
    )
    assert started(bundle.folder) == 1
    data = bundle.node["data-path"]
    said = f"error: {data}: there is nothing: --data-path PATH\n"
    assert capsys.readouterr().err == said
    # Whoever trains elsewhere does not see the data.
    monkeypatch.setattr(FakeSuperLink, "known", set())
    assert started(bundle.folder, "--isolation=process") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "does not know this device's key: `fleet register`" in line


@pytest.mark.usefixtures("superlink")
@pytest.mark.parametrize(
    ("ended", "code", "said"),
    [
        ((0, False), 1, "refused this device, whose key it knows"),
        ((0, True), 0, ""),
        ((3, False), 3, ""),
    ],
)
def test_a_supernode_that_stops_by_itself_was_refused(
    ended: tuple[int, bool],
    code: int,
    said: str,
    with_data: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(supernode, "run_program", lambda *_: ended)
    assert started(with_data.folder) == code
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("superlink", "pauses")
def test_a_clock_that_goes_wrong_later_is_waited_for_as_well(
    with_data: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    starts = []

    def run(*_: object) -> tuple[int, bool]:
        starts.append(1)
        monkeypatch.setattr(FakeSuperLink, "ahead", 400.0)
        return 0, len(starts) == 2

    def put_right(_: float) -> None:
        monkeypatch.setattr(FakeSuperLink, "ahead", 0.0)

    monkeypatch.setattr(supernode, "run_program", run)
    monkeypatch.setattr(time, "sleep", put_right)
    assert started(with_data.folder) == 0
    assert len(starts) == 2
    assert "waiting: this device's clock is 7 min" in capsys.readouterr().err


@pytest.mark.usefixtures("superlink")
@pytest.mark.parametrize(
    ("code", "why"),
    [
        # It lost its power, and the server has not noticed yet.
        (49, "takes an earlier start of this device for alive"),
        # An error, which it has logged, has ended its work.
        (75, "starting anew in a moment"),
    ],
)
def test_what_passes_is_tried_again_after_a_while(
    code: int,
    why: str,
    with_data: Bundle,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ends = iter([(code, False), (code, False), (0, True)])
    monkeypatch.setattr(supernode, "run_program", lambda *_: next(ends))
    assert started(with_data.folder) == 0
    assert pauses == [15, 15]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert why in said[0]


@pytest.mark.usefixtures("superlink")
def test_two_devices_on_one_machine_get_a_port_each(
    with_data: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], _: object) -> tuple[int, bool]:
        port = int(command[command.index("--port") + 1])
        doors.append(socket.create_server(("127.0.0.1", port)))  # it is free
        return 0, True

    doors: list[socket.socket] = []
    monkeypatch.setattr(supernode, "run_program", run)
    assert started(with_data.folder) == started(with_data.folder) == 0
    assert len({door.getsockname()[1] for door in doors}) == 2
    for door in doors:
        door.close()


@pytest.mark.parametrize(
    "flags", [["--port", "9095"], ["--port=9095"], ["--isolation=process"]]
)
def test_a_port_that_somebody_else_has_to_know_is_not_chosen(flags: list[str]) -> None:
    assert supernode.own_port(flags) == []


PARENT = """
import os, sys
from client_app.device.flower_program import run_program
print("started", flush=True)
print(run_program([sys.executable, "-c", sys.argv[1]], dict(os.environ)), flush=True)
"""
CHILD = """
import signal, sys, time
def end(number, frame):
    print("asked", number, flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(60)
"""


def parent(child: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, child],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_signal_is_passed_on_and_an_own_end_is_told_apart() -> None:
    process = parent(CHILD)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["started\n", "ready\n"]
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=200)[0] == "asked 15\n(7, True)\n"
    alone = parent("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert alone.communicate(timeout=200)[0] == "started\n(137, False)\n"


def test_ctrl_c_in_a_terminal_reaches_the_supernode_once() -> None:
    # Passed on, and not by the terminal as well: it is of another group.
    process = parent("import os; print(os.getpgrp() == os.getpid(), flush=True)")
    assert process.communicate(timeout=200)[0] == "started\nTrue\n(0, False)\n"


@pytest.mark.parametrize("made", ["directory", "bytes"])
def test_a_configuration_that_cannot_be_read_is_one_line(
    made: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("device.toml", "ca.crt", "supernode.key"):
        (tmp_path / name).write_bytes(b"\xff")
    if made == "directory":
        (tmp_path / "device.toml").unlink()
        (tmp_path / "device.toml").mkdir()
    assert started(tmp_path) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'device.toml'} cannot be read: ")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child")
def test_what_is_killed_leaves_no_supernode_behind() -> None:
    process = parent(f"import os; print(os.getpid(), flush=True)\n{CHILD}")
    assert process.stdout is not None
    process.stdout.readline()
    child = int(process.stdout.readline())
    process.stdout.readline()
    process.kill()
    assert process.stdout.read() == "asked 15\n"
    with pytest.raises(ProcessLookupError):
        for _ in range(600):
            os.kill(child, 0)
            time.sleep(0.05)
    process.wait()


@pytest.mark.usefixtures("superlink")
def test_the_link_is_measured_said_and_handed_on(
    with_data: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    commands = []
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(supernode, "measured_uplink", lambda _: 32_000.04)

    def ran(command: list[str], env: dict[str, str]) -> tuple[int, bool]:
        commands.append(command)
        return 0, True

    monkeypatch.setattr(supernode, "run_program", ran)
    assert started(with_data.folder) == 0
    said = "link: 256 kbit/s up (measured): messages go in pieces of 128 KiB\n"
    assert capsys.readouterr().out == said
    [command] = commands
    assert command[1:3] == ["-m", "client_app.device.flower_supernode"]
    config = command[command.index("--node-config") + 1]
    assert config.endswith(" uplink-bytes-per-second=32000.0")
    monkeypatch.setenv(VARIABLE, "much")
    assert started(with_data.folder) == 2
    assert capsys.readouterr().err.startswith(f"error: {VARIABLE} = 'much' is not")
