"""What ``fleet run`` hands out is what Flower would, sooner and in fewer bytes."""

import io
import zipfile
from pathlib import Path

from common import flower_internals
from server_app.launcher.app_folder import PACKAGES, app_folder
from server_app.provisioning.apps import compressed

ROOT = Path(__file__).resolve().parents[3]


def contents(fab: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(fab)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_app_is_the_same_in_less_than_half_the_bytes(tmp_path: Path) -> None:
    stored = flower_internals.build_fab_from_disk(ROOT)
    # Packed from a directory without what Flower would leave out.
    folder = app_folder(ROOT, tmp_path)
    assert {path.name for path in folder.iterdir()} - {".gitignore"} == {
        *PACKAGES,
        "pyproject.toml",
    }
    assert flower_internals.build_fab_from_disk(folder) == stored
    assert app_folder(ROOT, tmp_path) == folder
    assert app_folder(tmp_path, tmp_path) == tmp_path  # another app, where it is
    packed = compressed(stored)
    assert contents(packed) == contents(stored)
    assert list(contents(packed)) == list(contents(stored))
    assert len(packed) < len(stored) / 2
    assert compressed(stored) == compressed(packed) == packed
