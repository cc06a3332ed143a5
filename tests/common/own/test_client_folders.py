"""Folders of the clients of a simulation: which there are, and one line where not."""

from pathlib import Path

import pytest

from common.errors import SettingsError
from common.own.client_folders import client_folders


def test_every_folder_is_a_client_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("south", "Zoë-2", "cam.north", ".git", "__MACOSX", "klinik"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "linked").symlink_to(tmp_path / "south")
    names = ["Zoë-2", "cam.north", "klinik", "linked", "south"]
    assert [path.name for path in client_folders(tmp_path, 5)] == names
    assert client_folders(str(tmp_path)) == [tmp_path / name for name in names]


def refused(data_dir: Path, clients: int | None = None) -> str:
    with pytest.raises(SettingsError) as error:
        client_folders(data_dir, clients)
    said = str(error.value)
    assert "\n" not in said and f"data-dir = {str(data_dir)!r}" in said
    return said


def test_what_is_no_such_folder_is_one_line(tmp_path: Path) -> None:
    assert refused(tmp_path / "gone").endswith(
        "cannot be read: No such file or directory"
    )
    assert 'has no folder: partition = "folders" takes one for each' in refused(
        tmp_path
    )
    (tmp_path / "a.csv").touch()
    (tmp_path / ".cache").mkdir()
    assert "has no folder" in refused(tmp_path)
    assert "Not a directory" in refused(tmp_path / "a.csv")
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    said = refused(tmp_path, 3)
    assert "clients = 3 is not allowed" in said and "has 2 folders" in said


@pytest.mark.parametrize("name", ["cam north", "-a", "é" * 101, "a,b", "x\u202ey"])
def test_a_folder_that_cannot_name_a_client(tmp_path: Path, name: str) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / name).mkdir()
    assert "cannot be the name of a client: 1 to 100 letters" in refused(tmp_path)
