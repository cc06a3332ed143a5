"""``check-data``: what it counts, by hand; its exit codes; that it leaves nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client_app.__main__ import main
from client_app.commands.check_data import LISTED

TASK = (
    'kind = "image"\nclasses = ["ok", "crack", "rust"]\nsize = [4, 4]\nchannels = 1\n'
)


@pytest.fixture
def task(tmp_path: Path) -> Path:
    file = tmp_path / "task.toml"
    file.write_text(TASK)
    return file


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """20 "ok" of 100 and 10 "rust" of 200, all different in one pixel but two."""
    folder = tmp_path / "site"
    for name, level, count in (("ok", 100, 20), ("rust", 200, 10)):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            picture = np.full((4, 4), level, np.uint8)
            picture[0, 0] = max(index, 1)
            Image.fromarray(picture).save(folder / name / f"{index}.png")
    (folder / "ok" / "broken.png").write_bytes(b"no picture")
    (folder / "ok" / "empty.png").touch()
    (folder / "ok" / "notes.txt").write_text("seen in May")
    return folder


def check(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = main(["check-data", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out + said.err


def report(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    _, said = check(capsys, *arguments, "--json")
    found: dict[str, Any] = json.loads(said)
    return found


def test_it_counts_what_is_there(
    site: Path, task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = report(capsys, site, "--task", task)
    assert found["can_take_part"] is True and found["reason"] == ""
    assert found["rows"] == found["train"] + found["held_out"] == 30
    assert found["classes"] == {"ok": 20, "crack": 0, "rust": 10}
    assert sum(found["held_out_classes"].values()) == found["held_out"]
    # Index 0 and 1 of each class are the same picture.
    assert (found["copies"], found["groups"]) == (2, 0)
    assert found["format"] == "png"
    assert found["cache_bytes"] == 30 * 16
    skipped = {name for names in found["skipped"].values() for name in names}
    assert {Path(name).name for name in skipped} == {
        "broken.png",
        "empty.png",
        "notes.txt",
    }
    [channel] = found["channels"]
    # Of the files, not of the task's scale.
    assert 0 <= channel["least"] <= 19 and channel["most"] in (100.0, 200.0)
    assert 90 < channel["mean"] < 200
    assert channel["missing"] == 0
    assert 0 < found["round"]["memory_one"] <= found["round"]["memory_all"]
    assert min(found["round"][f"seconds_{n}"] for n in ("one", "all")) > 0


def test_people_read_the_same(
    site: Path, task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = check(capsys, site, "--task", task)
    assert code == 0
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert lines[0] == f"{site}: 30 samples of kind image, png"
    assert "crack none" in lines
    assert "has nothing of crack: that is normal, other devices may" in lines
    assert "3 skipped:" in lines
    assert not [line for line in lines if line.startswith("warning: ")]
    assert lines[-1] == "can take part"


def test_who_cannot_take_part_is_told_why(
    site: Path, task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few"
    (few / "ok").mkdir(parents=True)
    for name in ("5.png", "6.png"):
        (few / "ok" / name).write_bytes((site / "ok" / name).read_bytes())
    code, said = check(capsys, few, "--task", task)
    assert code == 1
    [last] = said.splitlines()[-1:]
    assert last == "cannot take part: has 2 samples, the task asks for at least 10"

    code, said = check(capsys, site / "ok" / "notes.txt", "--task", task)
    assert code == 1 and "cannot take part: " in said
    (site / "rst").mkdir()
    (site / "rust" / "3.png").rename(site / "rst" / "3.png")
    found = report(capsys, site, "--task", task)
    assert found["can_take_part"] is False
    assert "'rst'" in found["reason"] and "ok, crack, rust" in found["reason"]


def test_decoded_samples_stay_only_where_they_are_asked_for(
    site: Path, task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    check(capsys, site, "--task", task)
    assert sorted(tmp_path.rglob("*")) == before
    check(capsys, site, "--task", task, "--state-dir", tmp_path / "state")
    assert [*(tmp_path / "state" / "data").iterdir()]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--set", "backbone=cnn"), "--set: "),
        (("--set", 'backbone="cnm"'), "cnm"),
        (("--set", 'backbone="text-transformer"'), "is no text"),
        (("--set", "batch-size=0"), "batch-size = 0 is not allowed"),
    ],
)
def test_mistakes_are_one_line(
    more: tuple[str, ...],
    said: str,
    site: Path,
    task: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out = check(capsys, site, "--task", task, *more)
    [line] = out.splitlines()
    assert code == 2 and line.startswith("error: ") and said in line


def test_what_is_not_there_is_one_line(
    site: Path, task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "nowhere"
    assert check(capsys, nowhere, "--task", task) == (
        2,
        f"error: there is nothing at {nowhere}\n",
    )
    code, said = check(capsys, site, "--task", nowhere)
    assert code == 2 and "cannot be read: No such file" in said
    task.write_text('kind = "imag"')
    code, said = check(capsys, site, "--task", task)
    assert code == 2 and "did you mean 'image'" in said


def test_of_many_classes_some_are_listed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    names = [f"c{k}" for k in range(60)]
    (tmp_path / "task.toml").write_text(
        f'kind = "table"\nclasses = {names}\ncolumns = ["x"]\n'
    )
    rows = [f"{k},c{k % 30}" for k in range(60)]  # two of each of the first thirty
    (tmp_path / "a.csv").write_text("\n".join(["x,label", *rows]))
    code, out = check(capsys, tmp_path / "a.csv", "--task", tmp_path / "task.toml")
    assert code == 0
    lines = out.splitlines()
    assert sum(line.startswith("c") and "2  " in line for line in lines) == LISTED
    assert f"and {60 - LISTED} more (--json has all)" in lines
    [missing] = [line for line in lines if line.startswith("has nothing of")]
    assert f"c{29 + LISTED} and {30 - LISTED} more: that is normal" in missing
