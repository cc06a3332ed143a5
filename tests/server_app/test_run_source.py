"""A run's directory is enough to predict as its strategy did."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client_app.kept.snapshot import DeviceSource
from common.data import load_dataset
from common.errors import SourceError
from common.serving import cli
from common.serving.servable import ModelSource
from server_app.__main__ import main
from server_app.commands.simulate import simulate
from server_app.run_source import RunSource

CLIENTS = 4
CONFIG: dict[str, Any] = {
    "num-rounds": 2,
    "num-experts": 4,
    "train-samples": 400,
    "local-epochs": 1,
}


def train(folder: Path, **changes: Any) -> Path:
    places = {"output-dir": str(folder / "results"), "state-dir": str(folder / "state")}
    simulate({**CONFIG, **places, **changes}, CLIENTS)
    [run] = (folder / "results").iterdir()
    return run


def last_metrics(run: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads(
        (run / "metrics.jsonl").read_text().splitlines()[-1]
    )
    return metrics


def accuracy(source: ModelSource) -> float:
    digits = load_dataset("digits", ".")
    found = source.load().predict(digits.x_test)
    return float((found.classes == digits.y_test).mean())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("trained"))


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": "fedmix"},
        {"strategy": "fed-moe", "reserved-samples": 40},
        {"strategy": "fedjets"},
        {"strategy": "fedrolex"},
        {"strategy": "flwr:FedAdam"},
        {"strategy": "flex-moe", "top-k": 2, "backbone": "cnn"},
    ],
    ids=lambda changes: changes["strategy"],
)
def test_the_rebuilt_mixture_is_as_good_as_the_run_said(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    run = train(tmp_path, **changes)
    found = accuracy(RunSource(run))
    assert found == pytest.approx(last_metrics(run)["server_global"], abs=1e-9)


def test_a_device_is_as_good_as_it_reported(run: Path) -> None:
    state = run.parent.parent / "state"
    reported = last_metrics(run)["clients"]
    assert len(reported) == CLIENTS
    for client in reported:
        source = DeviceSource(state, client=client["client"])
        servable = source.load()
        assert (servable.run, servable.server_round) == (run.name, 2)
        assert list(servable.experts) == client["experts"]
        assert accuracy(source) == pytest.approx(client["client_global"], abs=1e-9)


def test_flex_moe_names_experts_and_is_as_good_as_the_run_said(run: Path) -> None:
    source = RunSource(run)
    assert accuracy(source) == pytest.approx(last_metrics(run)["server_global"])
    servable = source.load()
    assert (servable.run, servable.server_round) == (run.name, 2)
    assert servable.experts == (0, 1, 2, 3)
    experts = servable.predict(load_dataset("digits", ".").x_test).experts
    assert set(experts.tolist()) <= set(range(4))


def test_a_damaged_checkpoint_is_passed_over_and_left_where_it_is(
    run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    (copy / "checkpoints").mkdir(parents=True)
    (copy / "run.json").write_bytes((run / "run.json").read_bytes())
    with pytest.raises(SourceError, match="no intact checkpoint"):
        RunSource(copy).version()
    with pytest.raises(SourceError, match="no intact checkpoint"):
        RunSource(copy).load()
    first, second = sorted((run / "checkpoints").glob("round-*.ckpt"))
    source = RunSource(copy)
    (copy / "checkpoints" / first.name).write_bytes(first.read_bytes())
    before = source.version()
    assert source.load().server_round == 1
    damaged = copy / "checkpoints" / second.name
    damaged.write_bytes(second.read_bytes()[:-1])
    assert source.version() != before
    assert source.load().server_round == 1
    assert damaged.exists()


def test_what_is_no_run(run: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"run\.json: No such file"):
        RunSource(tmp_path).load()
    facts = json.loads((run / "run.json").read_text())
    (tmp_path / "checkpoints").symlink_to(run / "checkpoints")
    for change, told in (
        ({"task": {"kind": "sound"}}, "kind = 'sound' is not allowed"),
        ({"settings": {"strategy": 3}}, "strategy = 3 is not allowed"),
        ({"settings": {"strategy": "flexmoe"}}, "did you mean 'flex-moe'"),
    ):
        (tmp_path / "run.json").write_text(json.dumps({**facts, **change}))
        with pytest.raises(SourceError, match=told):
            RunSource(tmp_path).load()


def test_the_commands(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = load_dataset("digits", ".").x_test[:5]
    np.savez(tmp_path / "x.npz", x=x)
    expected = RunSource(run).load().predict(x)
    given = ["predict", "--run", str(run), "--input", str(tmp_path / "x.npz")]
    assert main(given) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["sample", "class", "probability", "expert"]
    rows = [line.split() for line in lines]
    assert [int(row[1]) for row in rows] == expected.classes.tolist()
    assert [float(row[2]) for row in rows] == pytest.approx(
        expected.probabilities.max(1), abs=1e-4
    )
    assert [int(row[3]) for row in rows] == expected.experts.tolist()

    assert main([*given, "--output", str(tmp_path / "out.npz")]) == 0
    assert capsys.readouterr().out == ""
    with np.load(tmp_path / "out.npz") as out:
        assert list(out["names"]) == list("01234")
        np.testing.assert_array_equal(out["probabilities"], expected.probabilities)
        np.testing.assert_array_equal(out["classes"], expected.classes)
        np.testing.assert_array_equal(out["experts"], expected.experts)

    assert main([*given[:3], "--input", str(tmp_path / "no.npz")]) == 2
    assert main(["predict", "--run", str(tmp_path), *given[3:]]) == 2
    listen = ["--listen", "0.0.0.0:0"]
    assert main(["serve", "--run", str(run), *listen]) == 2
    assert main(["serve", "--run", str(run), "--memory", "1k"]) == 2
    assert main(["serve", "--run", str(run), "--tls-cert", "x"]) == 2
    assert main(["export", "--run", str(tmp_path)]) == 2
    errors = [
        line
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("error: ")
    ]
    assert len(errors) == 6
    for told, error in zip(
        ("no.npz", "run.json", "reachable from", "budget", "--tls-key", "run.json"),
        errors,
        strict=True,
    ):
        assert told in error


def test_who_has_read_enough_of_a_table_ends_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    np.savez(tmp_path / "x.npz", x=load_dataset("digits", ".").x_test[:5])
    monkeypatch.setattr("sys.stdout", Closed())
    with pytest.raises(BrokenPipeError):  # what every command makes of it is elsewhere
        cli.predict(RunSource(run), input=tmp_path / "x.npz")


def test_onnx_of_a_trained_digits_model(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = pytest.importorskip("common.serving.export")
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    path = tmp_path / "digits.onnx"
    given = ["export", "--run", str(run), "--format", "onnx", "--output", str(path)]
    assert main(given) == 0
    assert "ONNX opset 18" in capsys.readouterr().out
    digits = load_dataset("digits", ".")
    x = digits.x_test
    probabilities, experts = export.onnx_runner(path)(x[:, None].astype(np.float32))
    expected = RunSource(run).load().predict(x)
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-4)
    assert (experts == expected.experts).mean() > 0.99
