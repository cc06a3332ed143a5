"""What ``fleet run`` hands out is Flower's own app, in fewer bytes."""

import io
import zipfile
from pathlib import Path

from common import flower_internals
from server_app.provisioning.apps import compressed

ROOT = Path(__file__).resolve().parents[3]


def contents(fab: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(fab)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_app_is_the_same_in_less_than_half_the_bytes() -> None:
    stored = flower_internals.build_fab_from_disk(ROOT)
    packed = compressed(stored)
    assert contents(packed) == contents(stored)
    assert list(contents(packed)) == list(contents(stored))
    assert len(packed) < len(stored) / 2
    assert compressed(stored) == compressed(packed) == packed
