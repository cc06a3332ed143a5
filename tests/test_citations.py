"""What docstrings cite of ``docs/methods.md`` is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = set(re.findall(r"^## (\d+)\.", (ROOT / "docs/methods.md").read_text(), re.M))


@pytest.mark.parametrize("package", ["common", "client_app", "server_app", "tests"])
def test_every_section_that_is_cited_exists(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        cited = re.findall(r"docs/methods\.md,\s+(\d+)", path.read_text())
        assert set(cited) <= SECTIONS, path
        if path.name != Path(__file__).name:
            assert "METHODS" not in path.read_text(), path
