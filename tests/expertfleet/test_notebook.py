"""Runs as a function: tables, and a notebook that is executed as Jupyter would."""

import json
from pathlib import Path
from typing import Any

import pytest

import expertfleet
from server_app.launcher.config import RunConfigError
from server_app.run_folder.run_files import RunFileError

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples/three_runs.ipynb"
SMALL = "num-rounds=2 num-experts=4 local-epochs=1 train-samples=200 test-samples=50"


def test_a_run_returns_its_rounds_and_clients(tmp_path: Path) -> None:
    found = expertfleet.run(
        SMALL, strategy="random", clients=3, output_dir=str(tmp_path), quiet=True
    )
    lines = (found.path / "metrics.jsonl").read_text().splitlines()
    rounds = [json.loads(line) for line in lines]
    assert found.path.parent == tmp_path
    assert found.settings["strategy"] == "random"
    assert list(found.rounds.index) == [1, 2]
    assert list(found.rounds["server_global"]) == [r["server_global"] for r in rounds]
    assert len(found.clients) == 6
    assert set(found.clients["client"]) == {"client-0", "client-1", "client-2"}
    assert "<iframe" in found._repr_html_()
    assert repr(expertfleet.open_run(found.path)) == repr(found)
    assert found.model().load().name


@pytest.mark.parametrize(
    ("config", "given", "said"),
    [
        ("", {"rl": 0.1}, "unknown setting 'rl'; did you mean 'lr'"),
        ("", {"clients": 0}, "clients = 0 is not allowed"),
        ("lr=fast", {}, "'lr=fast' is not valid"),
        ("", {"num_rounds": -1}, "num-rounds = -1 is not allowed"),
    ],
)
def test_what_cannot_be_run_is_said(
    config: str, given: dict[str, int], said: str
) -> None:
    with pytest.raises(RunConfigError, match=said):
        expertfleet.run(config, **given)  # type: ignore[arg-type]


def test_no_run_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="is not the directory of a run"):
        expertfleet.open_run(tmp_path)


def test_every_name_is_there() -> None:
    for name in expertfleet.__all__:
        assert getattr(expertfleet, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        expertfleet.nothing  # noqa: B018
    assert set(expertfleet.__all__) <= set(dir(expertfleet))


@pytest.mark.slow
def test_the_notebook_of_three_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("FORCE_COLOR", "1")  # as Jupyter's own processes have it
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources=resources
    ).execute()
    assert len(list((tmp_path / "results").iterdir())) == 3
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    shown = {kind for out in outputs for kind in out.get("data", {})}
    assert {"image/png", "text/html"} <= shown
