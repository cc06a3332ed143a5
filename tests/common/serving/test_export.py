"""Exported files answer as torch does."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from common.data import Normaliser
from common.inputs import prepare
from common.moe import ModelSpec
from common.moe.ensemble import GatedMixture, UsageMixture
from common.serving.export import (
    OPSET,
    ExportError,
    executorch_runner,
    export_executorch,
    export_onnx,
)
from common.serving.onnx_file import Run, onnx_runner
from common.serving.servable import Servable
from common.task import Fixed, TableTask, parse_task
from common.task.known import task_of_shape
from tests.common.moe.support import BACKBONE_SHAPES, text_spec, texts
from tests.common.serving.support import images, make_servable

pytestmark = pytest.mark.skipif(
    find_spec("onnxruntime") is None, reason="the extra `export` is not installed"
)

SHAPES = {**BACKBONE_SHAPES, "mlp": (1, 8, 8)}


def servable_of(backbone: str, *, gated: bool, **changes: object) -> Servable:
    shape = SHAPES[backbone]
    fields = {"num_experts": 5, "expert_hidden": 8, "top_k": 2, **changes}
    spec = ModelSpec(backbone=backbone, input_shape=shape, num_classes=7, **fields)  # type: ignore[arg-type]
    held = (1, 3, 4)
    model = spec.build(held, seed=1)
    mean, std = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)) if shape[0] == 3 else ((0.1,), (2,))
    return Servable(
        predictor=GatedMixture(model) if gated else UsageMixture(model, [1, 2, 3]),
        task=task_of_shape(shape, 7, Normaliser(scale=255.0, mean=mean, std=std), 0),
        run="r",
        server_round=3,
        experts=held,
    )


def check(servable: Servable, run: Run) -> None:
    """Run the file on other samples, in other numbers than it was exported with."""
    rng = np.random.default_rng(5)
    for count in (1, 9):
        x = rng.integers(0, 256, (count, *servable.task.input_shape))
        probabilities, experts = run(x.astype(np.float32))
        prepared = prepare(servable.task, x.astype(np.uint8))
        with torch.inference_mode():
            expected = servable.predictor(torch.from_numpy(prepared)).numpy()
        np.testing.assert_allclose(probabilities, expected, atol=1e-4)
        assert experts.tolist() == servable.predict(x.astype(np.uint8)).experts.tolist()


@pytest.mark.parametrize("backbone", BACKBONE_SHAPES)
def test_onnx_equals_torch_on_every_backbone(backbone: str, tmp_path: Path) -> None:
    servable = servable_of(backbone, gated=True)
    path = tmp_path / "deep" / "model.onnx"
    written = export_onnx(servable, path)
    assert written.difference <= 1e-4
    assert written.nbytes == path.stat().st_size
    check(servable, onnx_runner(path))


@pytest.mark.parametrize("changes", [{"mixes": "probabilities"}, {"common_gate": True}])
def test_onnx_equals_torch_on_other_mixtures(
    changes: dict[str, object], tmp_path: Path
) -> None:
    servable = servable_of("mlp", gated=True, **changes)
    export_onnx(servable, tmp_path / "m.onnx")
    check(servable, onnx_runner(tmp_path / "m.onnx"))


@pytest.mark.parametrize("backbone", BACKBONE_SHAPES)
def test_executorch_equals_torch_on_every_backbone(
    backbone: str, tmp_path: Path
) -> None:
    pytest.importorskip("executorch", reason="the package executorch is not installed")
    servable = servable_of(backbone, gated=True)
    written = export_executorch(servable, tmp_path / "m.pte")
    assert written.difference <= 1e-4
    check(servable, executorch_runner(written.path))
    facts = json.loads((tmp_path / "m.pte.json").read_text())
    assert parse_task(facts["expertfleet.task"]) == servable.task


def test_the_servers_mixture_and_batch_norm(tmp_path: Path) -> None:
    servable = servable_of("resnet8", gated=False, norm="batch")
    export_onnx(servable, tmp_path / "m.onnx")
    check(servable, onnx_runner(tmp_path / "m.onnx"))


def test_the_file_says_what_it_is_and_nothing_of_where_it_was_made(
    tmp_path: Path,
) -> None:
    export_onnx(servable_of("mlp", gated=True), tmp_path / "m.onnx")
    onnx = pytest.importorskip("onnx")
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    assert {p.key: p.value for p in model.metadata_props} == {
        "run": "r",
        "round": "3",
        "held-experts": "1,3,4",
        "expertfleet.task": servable_of("mlp", gated=True).task.to_json(),
    }
    [x] = model.graph.input
    dims = [d.dim_param or d.dim_value for d in x.type.tensor_type.shape.dim]
    assert (x.name, dims) == ("x", ["batch", 1, 8, 8])
    assert [o.name for o in model.graph.output] == ["probabilities", "experts"]
    assert str(Path(__file__).parents[3]).encode() not in model.SerializeToString()


def test_int8_is_smaller_and_nearly_the_same(tmp_path: Path) -> None:
    servable = servable_of("cnn", gated=True)
    x = np.random.default_rng(0).integers(0, 256, (48, 16, 16, 3)).astype(np.uint8)
    plain = export_onnx(servable, tmp_path / "m.onnx")
    small = export_onnx(servable, tmp_path / "m8.onnx", x)
    assert small.nbytes < 0.45 * plain.nbytes
    assert small.samples == 9
    assert small.difference < 0.05
    assert small.agreement > 0.8
    onnx = pytest.importorskip("onnx")
    # The gate decides who answers: it stays in float.
    names = {i.name: i.data_type for i in onnx.load(small.path).graph.initializer}
    assert names["mixture.model.layers.0.gate.weight"] == onnx.TensorProto.FLOAT


def test_int8_is_compared_on_samples_it_was_not_fitted_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[np.ndarray] = []

    def keep(file: Path, x: np.ndarray, _: Path) -> Path:
        fitted.append(x)
        return file

    compared: list[np.ndarray] = []
    servable = make_servable()
    predict = type(servable).predict

    def noted(self: Servable, x: np.ndarray) -> object:
        compared.append(x)
        return predict(self, x)

    monkeypatch.setattr("common.serving.export.quantise", keep)
    monkeypatch.setattr(type(servable), "predict", noted)
    samples = images(11)
    written = export_onnx(servable, tmp_path / "m.onnx", samples)
    assert written.samples == len(compared[0]) == 2
    rows = [{row.tobytes() for row in part} for part in (fitted[0], compared[0])]
    assert not rows[0] & rows[1]
    assert len(rows[0] | rows[1]) == 11
    with pytest.raises(ExportError, match="1 sample is too few for int8"):
        export_onnx(servable, tmp_path / "one.onnx", samples[:1])
    assert not (tmp_path / "one.onnx").exists()


def test_a_model_that_depends_on_its_data_is_refused_in_one_line(
    tmp_path: Path,
) -> None:
    class Moody(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            wide = torch.ones(len(x), 10) if x.sum() > 3 else torch.zeros(len(x), 10)
            return wide.softmax(1)

    servable = make_servable(predictor=Moody())
    with pytest.raises(ExportError, match="Moody of run a-run cannot be exported"):
        export_onnx(servable, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_a_file_that_answers_differently_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servable = make_servable()
    assert servable.predict(images(2)).probabilities.shape == (2, 10)
    monkeypatch.setattr("common.serving.export.TOLERANCE", -1.0)
    with pytest.raises(ExportError, match="differs from torch by"):
        export_onnx(servable, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("routing", ["token", "sequence"])
@pytest.mark.parametrize("gated", [True, False])
def test_onnx_of_a_text_model_takes_token_ids(
    gated: bool, routing: str, tmp_path: Path
) -> None:
    spec = text_spec(routing=routing)
    model = spec.build(range(8), seed=1)
    usage = [1, 2, 3, 4, 4, 3, 2, 1]
    servable = Servable(
        predictor=GatedMixture(model) if gated else UsageMixture(model, usage),
        task=task_of_shape(spec.input_shape, 3, Normaliser(), 40),
        run="r",
        server_round=1,
        experts=tuple(range(8)),
    )
    path = tmp_path / "model.onnx"
    assert export_onnx(servable, path).difference <= 1e-4
    run = onnx_runner(path)
    for count in (1, 9):
        x = texts(count, seed=3).numpy()
        probabilities, experts = run(x)
        expected = servable.predict(x)
        np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-4)
        assert experts.tolist() == expected.experts.tolist()


def test_what_is_missing_in_a_table_is_the_mean_to_the_exported_file_too(
    tmp_path: Path,
) -> None:
    task = TableTask(
        classes=("low", "high"),
        columns=3,
        scale=Fixed(mean=(20.0, 1000.0, 0.0), std=(5.0, 300.0, 1.0)),
    )
    spec = ModelSpec(
        backbone="mlp",
        input_shape=(3,),
        num_classes=2,
        num_experts=3,
        expert_hidden=8,
        top_k=1,
    )
    servable = Servable(
        predictor=GatedMixture(spec.build(range(3), seed=1)),
        task=task,
        run="r",
        server_round=1,
        experts=(0, 1, 2),
    )
    export_onnx(servable, tmp_path / "m.onnx")
    mean = np.array([[25, 1000, 0]], dtype=np.float32)
    gaps = np.array([[25, np.nan, np.nan]], dtype=np.float32)
    run = onnx_runner(tmp_path / "m.onnx")
    np.testing.assert_array_equal(run(gaps)[0], run(mean)[0])
    expected = servable.predict(mean).probabilities
    np.testing.assert_allclose(run(gaps)[0], expected, atol=1e-5)
