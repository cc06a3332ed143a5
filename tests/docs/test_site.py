"""The site of the documentation: no warning, and no file from another host."""

import re
import sys
from pathlib import Path

import pytest

from common.settings import Settings
from server_app.strategies import STRATEGIES
from tests.conftest import REPOSITORY
from tests.programs import run_program

ELSEWHERE = re.compile(
    r"""<(?:script|img|iframe|source)[^>]*\ssrc="(?:https?:)?//[^"]*"""
    r"""|<link[^>]*rel="?(?:stylesheet|preload|preconnect|icon)"?[^>]*href="(?:https?:)?//[^"]*"""
    r"""|@import\s+(?:url\()?["']?(?:https?:)?//[^"')]*""",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    done = run_program(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)],
        REPOSITORY,
        timeout=280,
        NO_MKDOCS_2_WARNING="1",
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return place


@pytest.mark.slow
def test_nothing_is_fetched_from_another_host(site: Path) -> None:
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        found = ELSEWHERE.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path.name}: {found[0] if found else ''}"


@pytest.mark.slow
def test_every_setting_and_strategy_has_a_place_to_link_to(site: Path) -> None:
    settings = (site / "settings.html").read_text(encoding="utf-8")
    for section in Settings.model_fields.values():
        assert section.annotation is not None
        for name in section.annotation.model_fields:
            assert f'id="{name.replace("_", "-")}"' in settings
    strategies = (site / "strategies.html").read_text(encoding="utf-8")
    for name in STRATEGIES.built_in:
        assert f'id="{name}"' in strategies


def test_what_counts_as_another_host() -> None:
    assert ELSEWHERE.search('<script src="https://a.example/x.js">')
    assert ELSEWHERE.search('<link rel="stylesheet" href="//a.example/x.css">')
    assert ELSEWHERE.search("@import url(https://a.example/x.css)")
    assert not ELSEWHERE.search('<a href="https://a.example">')
    assert not ELSEWHERE.search('<script src="assets/x.js">')
