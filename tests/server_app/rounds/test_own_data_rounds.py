"""Rounds of devices with tables of their own: the scale, growth, who is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client_app.app import app as client_app
from common.data.tokens import HashedPieces
from common.inline_grid import InlineGrid
from common.own.own_data import open_own_data
from common.task import read_task
from server_app.fleet import nodes
from tests.whole_runs import serve

TASK = """
kind = "table"
classes = ["cold", "mild", "hot"]
columns = ["temp", "pressure"]
scale = "fleet"
"""
SITES = {"attic": ("cold", "mild"), "cellar": ("mild", "hot"), "yard": ("hot", "cold")}
CENTRE = {"cold": -5.0, "mild": 15.0, "hot": 35.0}


def lines(seed: int, classes: tuple[str, ...], rows: int) -> str:
    rng = np.random.default_rng(seed)
    labels = [classes[n % len(classes)] for n in range(rows)]
    return "".join(
        f"{rng.normal(CENTRE[label], 2):.3f},{rng.normal(101325, 500):.1f},{label}\n"
        for label in labels
    )


class Sites:
    """Three devices with a table each, and the runs of a server that has none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "task.toml").write_text(TASK)
        for seed, (name, classes) in enumerate(SITES.items()):
            self.file(name).parent.mkdir()
            text = "temp,pressure,label\n" + lines(seed, classes, 60)
            self.file(name).write_text(text)

    def file(self, name: str) -> Path:
        return self.folder / name / "log.csv"

    def grid(self, config: dict[str, Any]) -> InlineGrid:
        grid = InlineGrid(client_app, len(SITES), config)
        for context, name in zip(grid.contexts.values(), SITES, strict=True):
            context.node_config = {"name": name, "data-path": str(self.file(name))}
        return grid

    def run(self, rounds: int, resume: Path | None = None, **more: Any) -> Path:
        config: dict[str, Any] = {
            "task": str(self.folder / "task.toml"),
            "num-rounds": rounds,
            "num-experts": 4,
            "min-replies": 1,
            "local-epochs": 1,
            "output-dir": str(self.folder / "out"),
            **{key.replace("_", "-"): value for key, value in more.items()},
        }
        if resume is not None:
            config["resume-from"] = str(resume)
        serve(config, self.grid(config))
        [*_, newest] = sorted((self.folder / "out").iterdir())
        return newest

    def train_rows(self, *names: str) -> Any:
        """Return what these train on, as numbers of one array (n, 2)."""
        task = read_task(self.folder / "task.toml")
        tokeniser = HashedPieces()
        found = [open_own_data(self.file(n), task, tokeniser, None) for n in names]
        return np.concatenate([own.x_train for own in found]).astype(np.float64)


@pytest.fixture
def sites(tmp_path: Path) -> Sites:
    return Sites(tmp_path)


def facts(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text())
    return found


def rounds(run: Path) -> list[dict[str, Any]]:
    return [
        json.loads(each)
        for each in (run / "metrics.jsonl").read_text().split("\n")[:-1]
    ]


def test_the_run_has_one_scale_and_keeps_it_when_it_goes_on(sites: Sites) -> None:
    run = sites.run(2)
    said = facts(run)
    x = sites.train_rows(*SITES)
    np.testing.assert_allclose(said["task"]["scale"]["mean"], x.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(said["task"]["scale"]["std"], x.std(axis=0), rtol=1e-5)
    for name, classes in SITES.items():
        has = said["clients"][name]
        assert has["rows"] == 60
        lacks = [n for n, c in enumerate(("cold", "mild", "hot")) if c not in classes]
        assert [n for n, count in enumerate(has["per_class"]) if not count] == lacks
    # Everything else is there when it goes on; the scale is what it was.
    with sites.file("attic").open("a") as file:
        file.write(lines(9, ("hot",), 300))
    again = sites.run(4, resume=run)
    assert again == run
    assert facts(run)["task"] == said["task"]
    assert len(rounds(run)) == 4


def test_data_that_grow_count_once_the_device_has_been_asked(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    from server_app.rounds.loop import RoundLoop

    close, before = RoundLoop.close, len(sites.train_rows("attic"))

    def grow(self: RoundLoop, *given: Any) -> Any:
        record = close(self, *given)
        if record.round == 1:
            with sites.file("attic").open("a") as file:
                file.write(lines(9, ("hot",), 240))
        return record

    monkeypatch.setattr(RoundLoop, "close", grow)
    run = sites.run(3)
    counts = [
        {c["client"]: c["num_examples"] for c in each["clients"]}["attic"]
        for each in rounds(run)
    ]
    # Trained on all of them at once, counted in full from the round after.
    assert counts == [before, before, len(sites.train_rows("attic"))]
    assert counts[2] > 4 * counts[0]
    assert [each["rejected"] for each in rounds(run)] == [{}, {}, {}]
    notes = rounds(run)[2]["notes"]
    assert any(note.startswith("attic: its data have changed, ") for note in notes), (
        notes
    )
    assert facts(run)["clients"]["attic"]["rows"] == 300


def test_one_with_an_unknown_class_is_out_until_it_is_repaired(
    sites: Sites, monkeypatch: pytest.MonkeyPatch, hasty: None
) -> None:
    monkeypatch.setattr(nodes, "RETRY_SECONDS", 0.0)
    broken = sites.file("yard").read_text()
    sites.file("yard").write_text(broken.replace("hot", "hott"))
    tell = nodes.Nodes.tell
    seen: list[dict[str, str]] = []

    def repair(self: nodes.Nodes) -> None:
        seen.append(dict(self.refused))
        tell(self)
        sites.file("yard").write_text(broken)

    monkeypatch.setattr(nodes.Nodes, "tell", repair)
    run = sites.run(2, min_replies=3)
    [reason] = {found["yard"] for found in seen if "yard" in found}
    assert "class 'hott' is none of the task's: cold, mild, hot" in reason
    assert "did you mean 'hot'?" in reason
    x = sites.train_rows(*SITES)
    scale = facts(run)["task"]["scale"]
    np.testing.assert_allclose(scale["mean"], x.mean(axis=0), rtol=1e-5)
    assert facts(run)["refused"] == {}


def test_private_counts_say_how_many_there_are_at_least(sites: Sites) -> None:
    run = sites.run(1, private_counts=True)
    for has in facts(run)["clients"].values():
        assert sorted(has["per_class"]) == [0, 10, 10]
