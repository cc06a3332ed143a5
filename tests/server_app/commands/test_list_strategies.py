"""``python -m server_app strategies``: complete, in columns, and it never breaks."""

from importlib.metadata import EntryPoint

import pytest

from common.text import table
from server_app.__main__ import main
from server_app.commands import list_strategies
from server_app.strategies import STRATEGIES, find_strategy
from server_app.strategies.flex_moe import FlexMoE
from server_app.strategies.flower import flower_names


def test_every_name_is_there_and_says_when_to_use_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["strategies"]) == 0
    header, *lines, _, hint = capsys.readouterr().out.splitlines()
    assert hint.endswith("expertfleet strategies NAME")
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
    assert rows["random"] == ["a baseline: neither fitness nor balance"]
    assert rows["flwr:FedAdam"] == ["FedAdam of the package flwr"]


def test_each_of_ours_says_in_its_own_words_when_and_what_it_costs() -> None:
    for name in STRATEGIES.built_in:
        found = find_strategy(name)
        for said in ("use_when", "cost"):
            assert vars(found)[said], (name, said)  # and not its parent's
            assert vars(found)[said][-1] != "."


def test_of_one_there_is_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["strategies", "fedprox"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    first, *lines = out.splitlines()
    assert first == "fedprox"
    for line in (
        "source:   FedProx, Li et al., MLSys 2020",
        "cost:     as fedavg",
        "ships:    extractor, one expert: the dense model",
        "private:  data only",
        "options, as in strategy-options='mu=0.01'",
        "mu    0.01     mu of mu/2 ||w - w_t||^2",
    ):
        assert line in lines, line


def test_one_that_there_is_not_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strategies", "fedprx"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: strategy = 'fedprx'")
    assert "'fedprox'" in line


class Silent(FlexMoE):
    """A user's own, which says nothing of itself."""

    name = "silent"
    source = use_when = cost = ""


def test_one_of_your_own_need_not_say_when(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strategies", f"{__name__}:Silent"]) == 0
    assert "use when: -" in capsys.readouterr().out


def test_a_plugin_that_cannot_be_loaded_says_why_and_hides_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    point = EntryPoint("broken", "no_such_module:X", "expertfleet.strategies")
    monkeypatch.setattr("common.registry.installed_parts", lambda _: {"broken": point})
    [(name, reason)] = list_strategies.plugged_in()
    assert name == "broken"
    assert "no_such_module" in reason


def test_long_sources_are_wrapped() -> None:
    text = table([("a", "b", "c", "word " * 20)], width=60)
    assert all(len(line) <= 60 for line in text.splitlines())
