"""``doctor``: a line for each thing that is looked at, and what to do."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client_app.__main__ import main
from client_app.device import local_checks
from client_app.device.cgroup import Cgroup
from client_app.device.finding import Finding
from client_app.device.local_checks import free_memory, torch_runs
from server_app.provisioning.bundle import unpack
from server_app.provisioning.directory import FleetDirectory
from server_app.provisioning.members import Members
from server_app.provisioning.private_files import write
from tests.ports import free_port

Look = Callable[..., dict[str, dict[str, Any]]]

TASK = """
kind = "table"
classes = ["no", "yes"]
columns = ["a", "b"]
label_column = "label"
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [f"{i},{i % 3},{'yes' if i % 2 else 'no'}" for i in range(40)]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "t.csv").write_text("\n".join(["a,b,label", *rows]))
    return tmp_path / "data"


@pytest.fixture
def look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Look:
    """Run the doctor; return what it found by check. torch is another test's."""
    monkeypatch.setattr(local_checks, "_TRY", "print('of a test')")

    def run(*arguments: object, code: int = 0) -> dict[str, dict[str, Any]]:
        state = f"--state-dir={tmp_path / 'state'}"
        assert main(["doctor", "--json", state, *map(str, arguments)]) == code
        said = json.loads(capsys.readouterr().out)
        assert said["ok"] == (code == 0) == all(c["ok"] for c in said["checks"])
        return {each["check"]: each for each in said["checks"]}

    return run


def test_all_is_well_with_this_device(
    data: Path, tmp_path: Path, look: Look, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tmp_path / "task.toml"
    task.write_text(TASK)
    found = look("--data-path", data, "--task", task)
    assert list(found) == ["disk", "memory", "data", "torch", "samples"]
    assert found["data"]["text"] == f"{data}, 1 file"
    assert found["samples"]["text"] == "40 samples of kind table, 0 skipped"
    assert main(["doctor", f"--state-dir={tmp_path}", f"--data-path={data}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        *(["ok", "disk"], ["ok", "memory"], ["ok", "data"], ["ok", "torch"]),
    ]
    # What check-data says, in its words.
    (data / "t.csv").write_text("a,b,label\n1,2,maybe\n")
    found = look("--data-path", data, "--task", task, code=1)
    assert found["samples"]["text"] and not found["samples"]["ok"]


def test_data_that_cannot_be_read_are_named(
    data: Path, tmp_path: Path, look: Look
) -> None:
    # A run without a task asks for none.
    assert look()["data"]["text"].startswith("none of its own: a run with a task needs")
    found = look("--data-path", tmp_path / "none", code=1)["data"]
    assert found["text"].startswith(f"{tmp_path / 'none'}: there is nothing")
    (data / "deep").mkdir()
    (data / "deep" / "gone").symlink_to(tmp_path / "none")
    found = look("--data-path", data, code=1)["data"]
    assert found["text"].startswith(f"{data / 'deep' / 'gone'}: No such file")
    shutil.rmtree(data)
    data.mkdir()
    assert "there is nothing in" in look("--data-path", data, code=1)["data"]["text"]
    share = ["--set=partition-id=2", "--set=num-partitions=5"]
    assert look(*share)["data"]["text"] == "share 2 of 5 of the run's own data set"


def test_a_full_disk_and_one_that_is_not_ours(
    data: Path, tmp_path: Path, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        usage = shutil._ntuple_diskusage(10**9, 10**9 - 2**20, 2**20)
        full.setattr(shutil, "disk_usage", lambda _: usage)
        found = look("--data-path", data, code=1)["disk"]
    assert found["text"].startswith(f"1 MiB free at {tmp_path}, less than 64 MiB")
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    found = look("--data-path", data, code=1)["disk"]
    assert found["text"].startswith(f"{tmp_path} cannot be written to")


def test_no_memory(tmp_path: Path, data: Path, look: Look) -> None:
    found = look("--data-path", data, "--set=memory-bytes=100_000_000", code=1)
    said = "95 MiB of 95 MiB (memory-bytes) to train in, less than torch alone takes"
    assert found["memory"]["text"].startswith(said)
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (group / "memory.max").write_text(str(120 * 2**20))
    (group / "memory.current").write_text(str(90 * 2**20))
    (group / "memory.stat").write_text("inactive_file 0\n")
    inside = free_memory(cgroup=Cgroup(tmp_path))
    assert not inside.ok
    assert "of 120 MiB (the control group's limit)" in inside.text


def test_torch_takes_a_step_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch_runs().ok

    def failing(code: str) -> Finding:
        monkeypatch.setattr(local_checks, "_TRY", code)
        found = torch_runs()
        assert not found.ok
        return found

    assert "No module named 'no_torch'" in failing("import no_torch").text
    dying = "import os, signal; os.kill(os.getpid(), signal.{})"
    assert "not built for this processor" in failing(dying.format("SIGILL")).text
    assert "killed (SIGKILL): out of memory?" in failing(dying.format("SIGKILL")).text


def test_a_bundle_goes_first_and_its_absence_hides_nothing(
    data: Path, tmp_path: Path, look: Look
) -> None:
    folder = tmp_path / "bundle"
    found = look(f"--data-path={data}", folder, code=1)
    assert list(found) == ["bundle", "disk", "memory", "data", "torch"]
    assert found["bundle"]["text"] == f"{folder / 'device.toml'} is missing"
    address = f"127.0.0.1:{free_port()}"
    fleet = FleetDirectory(tmp_path / "fleet")
    fleet.create(Members(superlink=address, control=address, hosts=("127.0.0.1",)))
    fleet.add("pi0", data_path=str(data))
    for name, content in unpack(fleet.bundle_file("pi0").read_bytes()).items():
        write(folder / name, content)
    found = look(folder, code=1)
    assert found["bundle"]["text"] == f"pi0, to {address}"
    assert [name for name, each in found.items() if not each["ok"]] == ["port"]
    assert found["port"]["passes"] is True
    assert found["certificate"]["text"].startswith("this device's own is good until")


def test_settings_that_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--set", "a b"]) == 2
    assert capsys.readouterr().err.startswith("error: --set: ")
