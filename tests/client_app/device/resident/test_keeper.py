"""Messages with processes of their own, whatever becomes of who forks them."""

import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from client_app.device.resident.hand_over import (
    FOLDER,
    GIVEN_UP,
    KEEP_WARM,
    ROOT,
    SOCKET,
)

pytestmark = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="nothing is resident here"
)

PATIENCE = 120.0


class Resident:
    """A private folder, and a process that stands for the SuperExec."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parent = subprocess.Popen(["sleep", "1000"])
        self._log = folder.with_name("log")
        self.env = {
            **os.environ,
            FOLDER: str(folder),
            KEEP_WARM: "900",
            "PYTHONPATH": ROOT,
        }

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        program = [sys.executable, "-m", "tests.client_app.device.resident.fake_flower"]
        with self._log.open("a") as log:  # of all, as the SuperExec's is
            return subprocess.Popen(
                [*program, *words, "--parent-pid", str(self.parent.pid)],
                env=self.env,
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )

    def message(self, *words: str) -> tuple[int, str]:
        """Have one handled; return its exit code and what was said meanwhile."""
        before = len(self.log())
        code = self.start(*words).wait(timeout=PATIENCE)
        return code, self.log()[before:]

    def log(self) -> str:
        """Return what all have said so far."""
        return self._log.read_text() if self._log.exists() else ""

    def keepers(self) -> list[int]:
        return [int(line) for line in (self.folder / "starts").read_text().split()]

    @property
    def keeper(self) -> psutil.Process:
        return psutil.Process(self.keepers()[-1])

    def close(self) -> None:
        self.parent.kill()
        self.parent.wait()
        with suppress(FileNotFoundError):  # none was started, or the last has tidied up
            for pid in self.keepers():
                with suppress(psutil.Error):
                    psutil.Process(pid).kill()


@pytest.fixture
def resident(tmp_path: Path) -> Iterator[Resident]:
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    made = Resident(folder)
    yield made
    made.close()


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_each_message_has_its_own_process_and_its_code_comes_back(
    resident: Resident,
) -> None:
    codes, said = zip(*(resident.message("exit", c) for c in "037"), strict=True)
    assert codes == (0, 3, 7)
    [keeper] = resident.keepers()
    found = [re.search(r"exit in (\d+) of (\d+)", each) for each in said]
    pids = {match and match[1] for match in found}
    assert len(pids) == 3 and str(keeper) not in pids
    assert {match and match[2] for match in found} == {str(keeper)}
    assert stat.S_IMODE((resident.folder / SOCKET).stat().st_mode) == 0o600


def test_a_message_that_crashes_takes_nothing_along(resident: Resident) -> None:
    code, said = resident.message("kill")
    assert code == 128 + signal.SIGKILL
    assert "ended by SIGKILL, out of memory?" in said
    assert resident.message("exit", "5")[0] == 5
    assert len(resident.keepers()) == 1


def test_the_kernel_kills_a_message_first(resident: Resident) -> None:
    assert "500" in resident.message("threads")[1].split()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_work_stops_when_the_message_s_program_is_ended(
    resident: Resident, tmp_path: Path, number: signal.Signals
) -> None:
    file = tmp_path / "work"
    with resident.start("work", str(file)) as process:
        until(lambda: file.exists() and file.read_text())
        process.send_signal(number)
        process.wait(timeout=PATIENCE)
    until(file.with_suffix(".ended").exists)  # it was asked to
    until(lambda: gone(int(file.read_text())))


def test_a_message_outlives_the_keeper_and_the_next_has_another(
    resident: Resident, tmp_path: Path
) -> None:
    file = tmp_path / "work"
    with resident.start("work", str(file)) as process:
        until(lambda: file.exists() and file.read_text())
        worker = int(file.read_text())
        resident.keeper.kill()
        assert resident.message("exit", "4")[0] == 4
        assert process.poll() is None and not gone(worker)
        os.kill(worker, signal.SIGTERM)
        assert process.wait(timeout=PATIENCE) == 0
    assert len(resident.keepers()) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_its_parent_and_leaves_no_folder(
    resident: Resident, number: signal.Signals
) -> None:
    resident.message("exit", "0")
    keeper = resident.keeper.pid
    resident.parent.send_signal(number)
    resident.parent.wait()
    until(lambda: gone(keeper))
    assert not resident.folder.exists()
    resident.folder.mkdir()


def test_without_work_it_ends_and_comes_back(resident: Resident) -> None:
    resident.env[KEEP_WARM] = "0.2"
    resident.message("exit", "0")
    keeper = resident.keeper.pid
    until(lambda: gone(keeper))
    assert not (resident.folder / SOCKET).exists()
    assert resident.message("exit", "6")[0] == 6
    assert len(resident.keepers()) == 2


def test_without_a_resident_process_the_message_is_handled_all_the_same(
    resident: Resident,
) -> None:
    (resident.folder / "die").touch()
    code, said = resident.message("--help")
    assert len(resident.keepers()) == 2
    assert (code, said.count("no resident process")) == (0, 1)
    assert "Run a Flower ClientApp" in said
    # Once is enough, and not again for each message.
    code, said = resident.message("--help")
    assert "no resident process" not in said and "Run a Flower" in said
    assert len(resident.keepers()) == 2
    assert (resident.folder / GIVEN_UP).exists()


def test_many_messages_at_once_have_one_keeper(resident: Resident) -> None:
    started = [resident.start("exit", str(code)) for code in range(8)]
    codes = [process.wait(timeout=PATIENCE) for process in started]
    assert codes == list(range(8))
    assert len(resident.keepers()) == 1


def test_messages_leave_nothing_behind_in_the_keeper(
    resident: Resident, tmp_path: Path
) -> None:
    app = str(write_app(tmp_path / "app", "one"))
    files = []
    for _ in range(12):
        resident.message("import", app, "1")
        until(lambda: len(resident.keeper.children()) == 1)  # the template
        files.append(resident.keeper.num_fds())
    assert len({*files[2:]}) == 1, files


APP = """
import json, os, socket
from pathlib import Path
IMPORTED_BY = os.getpid()
FOLDER = str(Path(__file__).parents[1])
def tell(run, given=""):
    note = {"run": run, "folder": FOLDER, "app": "the_app", "given": given,
            "prepare": "the_app.more:prepare"}
    channel = socket.socket(fileno=os.dup(int(os.environ["EXPERTFLEET_NOTES"])))
    channel.send(json.dumps({"pid": os.getpid(), "told": note}).encode())
from the_app import more
"""
MORE = """
import os, threading, time
VALUE = %r
def prepare(given):
    %s
"""


def write_app(folder: Path, value: str, prepare: str = "pass") -> Path:
    (folder / "the_app").mkdir(parents=True)
    (folder / "the_app/__init__.py").write_text(APP)
    (folder / "the_app/more.py").write_text(MORE % (value, prepare))
    return folder


def imported(said: str) -> tuple[str, int, int]:
    """Return where an app came from, which process imported and which used it."""
    used = re.search(r"import in (\d+)", said)
    found = re.search(r"imported (\S+)/the_app/__init__\.py in (\d+)", said)
    assert used and found, said
    return found[1], int(found[2]), int(used[1])


def test_an_app_is_imported_once_for_a_run_and_another_run_has_its_own(
    resident: Resident, tmp_path: Path
) -> None:
    first = write_app(tmp_path / "a", "one")
    second = write_app(tmp_path / "b", "two")

    def template() -> int:
        """Wait for the run's template to be there and to have imported."""
        until(resident.keeper.children)
        [child] = resident.keeper.children()
        return child.pid

    folder, by, message = imported(resident.message("import", str(first), "1")[1])
    assert (folder, by) == (str(first), message)  # nothing was known of it
    kept = template()

    def warm(app: Path) -> str:
        """Send messages of run 1 until one finds the app imported."""
        while True:
            said = resident.message("import", str(app), "1")[1]
            if imported(said)[1] != imported(said)[2]:
                return said
            assert len(resident.keepers()) == 1

    said = warm(first)
    assert imported(said)[:2] == (str(first), kept)
    assert "spec the_app one" in said

    # Another run with other code: its own code at once, and soon its own template.
    said = resident.message("import", str(second), "2")[1]
    assert imported(said)[0] == str(second)
    assert imported(said)[1] == imported(said)[2]
    assert "spec the_app two" in said
    until(lambda: gone(kept))
    assert template() != kept


@pytest.mark.parametrize(
    "prepare",
    [
        "os._exit(1)",
        "threading.Thread(target=time.sleep, args=[1000], daemon=True).start()",
    ],
)
def test_a_run_that_cannot_be_kept_ready_is_imported_for_each_message(
    resident: Resident, tmp_path: Path, prepare: str
) -> None:
    app = write_app(tmp_path / "app", "one", prepare)
    messages = given_up = 0
    # It is said once it has been tried, which may be after the message that follows,
    # and while there is none.
    while messages < 50 and given_up < 3:
        resident.message("import", str(app), "1")
        until(lambda: not resident.keeper.children())
        messages += 1
        given_up += "cannot be kept ready" in resident.log()
    said = resident.log()
    assert said.count("cannot be kept ready") == 1
    pairs = re.findall(r"import in (\d+) .*\n.* in (\d+)\n", said)
    assert len(pairs) == messages and all(used == by for used, by in pairs)
    assert len(resident.keepers()) == 1


def test_a_template_that_is_killed_is_made_again(
    resident: Resident, tmp_path: Path
) -> None:
    app = str(write_app(tmp_path / "app", "one"))
    resident.message("import", app, "1")
    until(resident.keeper.children)
    [template] = resident.keeper.children()
    template.kill()
    until(lambda: gone(template.pid))
    assert resident.message("import", app, "1")[0] == 0
    until(resident.keeper.children)
    assert resident.keeper.children() != [template]
