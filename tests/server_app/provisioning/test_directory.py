"""A fleet's directory is its owner's, whoever made the links on the way."""

import os
from pathlib import Path

import pytest

from server_app.provisioning import ProvisioningError
from server_app.provisioning.directory import FleetDirectory
from tests.server_app.provisioning.fleet_operator import HOST, Operator


def test_another_s_directory_and_another_s_link_are_refused(
    operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o755)
    link = tmp_path / "link"
    link.symlink_to(mine)
    operator.folder = link
    operator.init()  # my own link
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 4711)
    said = operator.types("init", "--host", HOST, code=2)
    if os.getuid():  # root's links are everybody's: the directory is refused then
        assert f"{link} is a link of user" in said
    else:
        assert "belongs to user" in said
    assert "belongs to user" in _refusal(mine)
    assert "belongs to user" in _refusal(mine, lock=True)


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes links of another user")
def test_a_link_of_another_user_on_the_way_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "fleet"
    mine.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(mine.parent)
    os.lchown(link, 65534, 65534)
    assert "is a link of user 65534" in _refusal(link / "fleet", lock=True)
    os.chown(mine, 65534, 65534)
    assert "belongs to user 65534" in _refusal(mine, lock=True)
    assert mine.stat().st_mode & 0o777 == 0o755  # not touched


def _refusal(folder: Path, *, lock: bool = False) -> str:
    fleet = FleetDirectory(folder)
    with pytest.raises(ProvisioningError) as refused:
        if lock:
            with fleet.locked():
                pytest.fail("locked")
        fleet.members()
    return str(refused.value)
