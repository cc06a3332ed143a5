"""``python -m server_app strategies``: complete, in columns, and it never breaks."""

from importlib.metadata import EntryPoint

import pytest

from common.text import table
from server_app.__main__ import main
from server_app.commands import list_strategies
from server_app.strategies import STRATEGIES
from server_app.strategies.flower import flower_names


def test_every_name_has_what_travels_what_stays_and_a_source(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["strategies"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    starts = [header.index(title) for title in list_strategies.HEADER]
    rows = {}
    for line in lines:
        bounds = zip(starts, [*starts[1:], None], strict=True)
        cells = [line[start:end].strip() for start, end in bounds]
        assert all(cells), line
        rows[cells[0]] = cells[1:]
    assert set(rows) >= {
        *STRATEGIES.built_in,
        *(f"flwr:{name}" for name in flower_names()),
    }
    assert rows["flex-moe"] == [
        "extractor, assigned experts",
        "gate",
        "FLEX-MoE, arXiv 2512.23070",
    ]


def test_a_plugin_that_cannot_be_loaded_says_why_and_hides_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    point = EntryPoint("broken", "no_such_module:X", "expertfleet.strategies")
    monkeypatch.setattr("common.registry.installed_parts", lambda _: {"broken": point})
    [(name, _, _, reason)] = list_strategies.plugged_in()
    assert name == "broken"
    assert "no_such_module" in reason


def test_long_sources_are_wrapped() -> None:
    text = table([("a", "b", "c", "word " * 20)], width=60)
    assert all(len(line) <= 60 for line in text.splitlines())
