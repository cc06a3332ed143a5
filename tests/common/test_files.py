"""A file under two names."""

import os
from pathlib import Path

import pytest

from common.files import hold_on_to


@pytest.mark.parametrize("links", [True, False])
def test_a_second_name_outlives_the_first(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    name = tmp_path / "best"
    for text in ("first", "second", "second"):
        path = tmp_path / text
        path.write_text(text)
        hold_on_to(path, name)
        hold_on_to(path, name)  # as after a power cut: nothing changes
        path.unlink()
        assert name.read_text() == text
    assert [each.name for each in tmp_path.iterdir()] == ["best"]
