"""A trained mixture as one file for other runtimes: ONNX, int8 ONNX, ExecuTorch.

The exported graph takes samples in the data set's own numbers (float32, channels
first; tokens as int64) and normalises them itself; it gives ``probabilities`` (B, C)
and ``experts`` (B,). Routing is static: every expert runs, those not chosen are masked.
Every file is run once and compared with torch before it gets its name.

Needs the extra ``export`` (or, for ExecuTorch, the package ``executorch``).
"""

import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.files import atomic_write
from common.inputs import Inputs
from common.moe.ensemble import explaining
from common.serving.servable import Servable

OPSET = 18
TOLERANCE = 1e-4
"""Largest difference of a probability from torch's that a float export may have."""

Run = Callable[[NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]


class ExportError(ValueError):
    """A model cannot be exported; the message says why."""


class Exportable(nn.Module):
    """Normalisation and static mixture as one module.

    Parameters
    ----------
    predictor : nn.Module
    inputs : Inputs
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, predictor: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self.mixture = explaining(predictor).static()
        self.normalises = inputs.kind == "float32"
        channels = (-1, 1, 1) if len(inputs.input_shape) == 3 else (-1,)
        scale = inputs.normaliser.scale
        for name in ("mean", "std"):
            values = torch.tensor(getattr(inputs.normaliser, name)) * scale
            self.register_buffer(name, values.reshape(channels))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map stored samples (B, *input_shape) to probabilities and experts."""
        if self.normalises:
            x = (x - self.mean) / self.std
        probabilities, experts = self.mixture(x)
        return probabilities, experts


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and how it compares.

    Attributes
    ----------
    path : Path
    nbytes : int
    difference : float
        Largest absolute difference of a probability from torch's.
    agreement : float
        Share of samples with torch's class.
    samples : int
        How many were compared.
    """

    path: Path
    nbytes: int
    difference: float
    agreement: float
    samples: int


def samples_for(inputs: Inputs, count: int, seed: int = 0) -> NDArray[Any]:
    """Return made-up samples in the data set's numbers, (count, *input_shape)."""
    rng = np.random.default_rng(seed)
    shape = (count, *inputs.input_shape)
    if inputs.kind == "int64":
        # Not padding: texts that are nothing else say nothing of the model.
        return rng.integers(1, max(2, inputs.vocabulary), shape)
    return (rng.random(shape) * inputs.normaliser.scale).astype(np.float32)


def stored(inputs: Inputs, x: NDArray[Any]) -> NDArray[Any]:
    """Return samples in the data set's numbers, laid out as the graph takes them."""
    if inputs.kind == "int64":
        return np.ascontiguousarray(x, np.int64)
    inputs.prepare(x)  # for its checks
    plain = Inputs(input_shape=inputs.input_shape, num_classes=inputs.num_classes)
    return plain.prepare(x)


def export_onnx(
    servable: Servable, path: Path, calibration: NDArray[Any] | None = None
) -> Exported:
    """Write an ONNX file of opset 18 with a free batch axis.

    Parameters
    ----------
    servable : Servable
    path : Path
    calibration : ndarray, optional
        Samples as stored; given, weights and activations become int8 with ranges
        taken from them, and they are what is compared.

    Raises
    ------
    ExportError
        If the model has no static form, a package is missing, or the float file
        answers differently from torch.
    """
    _need("onnx", "onnxscript", "onnxruntime")
    inputs = servable.inputs
    x = samples_for(inputs, 16) if calibration is None else stored(inputs, calibration)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        _write_onnx(servable, file)
        if calibration is not None:
            file = _quantise(file, x, Path(folder))
        limit = TOLERANCE if calibration is None else 1.0
        return _keep(servable, file.read_bytes(), path, onnx_runner(file), x, limit)


def export_executorch(servable: Servable, path: Path) -> Exported:
    """Write an ExecuTorch program for one sample at a time, on XNNPACK's kernels.

    Raises
    ------
    ExportError
        As :func:`export_onnx`.
    """
    _need("executorch")
    exir = import_module("executorch.exir")
    xnnpack = import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    x = samples_for(servable.inputs, 16)
    try:
        program = torch.export.export(_module(servable), (torch.from_numpy(x[:1]),))
        lowered = exir.to_edge_transform_and_lower(
            program, partitioner=[xnnpack.XnnpackPartitioner()]
        )
        payload = bytes(lowered.to_executorch().buffer)
    except Exception as error:
        raise _no_static_form(servable, error) from error
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.pte")
        file.write_bytes(payload)
        runner = executorch_runner(file)
        return _keep(servable, payload, path, runner, x, TOLERANCE)


def onnx_runner(file: Path, threads: int = 1) -> Run:
    """Return a function that runs an ONNX file on the CPU."""
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    session = runtime.InferenceSession(
        str(file), options, providers=["CPUExecutionProvider"]
    )

    def run(x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        probabilities, experts = session.run(None, {"x": x})
        return probabilities, experts

    return run


def executorch_runner(file: Path) -> Run:
    """Return a function that runs an ExecuTorch program, sample by sample."""
    runtime = import_module("executorch.runtime").Runtime.get()
    method = runtime.load_program(file).load_method("forward")

    def run(x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        answers = []
        for row in range(len(x)):
            found = method.execute((torch.from_numpy(x[row : row + 1]),))
            answers.append([tensor.numpy().copy() for tensor in found])
        probabilities, experts = map(np.concatenate, zip(*answers, strict=True))
        return probabilities, experts

    return run


def _module(servable: Servable) -> nn.Module:
    return Exportable(servable.predictor, servable.inputs).eval()


def _write_onnx(servable: Servable, file: Path) -> None:
    # Two samples: an axis of 1 would be taken for one that never changes.
    example = torch.from_numpy(samples_for(servable.inputs, 2))
    try:
        with redirect_stdout(StringIO()), torch.inference_mode(False):
            torch.onnx.export(
                _module(servable),
                (example,),
                file,
                dynamo=True,
                opset_version=OPSET,
                input_names=["x"],
                output_names=["probabilities", "experts"],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # torch's exporter raises many kinds
        raise _no_static_form(servable, error) from error
    _label(servable, file)


def _label(servable: Servable, file: Path) -> None:
    """Say what the file is, and drop the exporter's notes: sources, paths, traces."""
    onnx = import_module("onnx")
    model = onnx.load(file)
    graph = model.graph
    for item in (graph, *graph.node, *graph.value_info, *graph.initializer):
        del item.metadata_props[:]
    facts = {
        "run": servable.run,
        "round": str(servable.server_round),
        "held-experts": ",".join(map(str, servable.experts)),
    }
    onnx.helper.set_model_props(model, facts)
    onnx.save(model, file)


def _quantise(file: Path, x: NDArray[Any], folder: Path) -> Path:
    quantization = import_module("onnxruntime.quantization")
    shapes = import_module("onnxruntime.quantization.shape_inference")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        batches = iter(np.array_split(x, -(-len(x) // 32)))

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"x": batch}

    prepared, quantised = folder / "prepared.onnx", folder / "int8.onnx"
    shapes.quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(prepared),
        str(quantised),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        # What is left in float (softmax, norms, the gate) is cheap, and rounding the
        # gate would change who answers.
        op_types_to_quantize=["Conv", "Gemm", "MatMul"],
        nodes_to_exclude=_gate_nodes(prepared),
    )
    return quantised


def _gate_nodes(file: Path) -> list[str]:
    graph = import_module("onnx").load(file).graph
    return [node.name for node in graph.node if any(".gate." in i for i in node.input)]


def _keep(
    servable: Servable,
    payload: bytes,
    path: Path,
    run: Run,
    x: NDArray[Any],
    limit: float,
) -> Exported:
    """Compare with torch, then write the file under its name."""
    found, experts = run(x)
    expected = servable.predict(x)
    difference = float(np.abs(found - expected.probabilities).max())
    if not difference <= limit:
        raise ExportError(
            f"the exported model differs from torch by {difference:.2g} in a "
            f"probability, above {limit:g}: nothing was written"
        )
    del experts  # of two experts with equal weight either may be named
    try:
        with atomic_write(path, 0o644) as file:
            file.write(payload)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror}") from None
    return Exported(
        path=path,
        nbytes=len(payload),
        difference=difference,
        agreement=float((found.argmax(1) == expected.classes).mean()),
        samples=len(x),
    )


def _need(*packages: str) -> None:
    for package in packages:
        try:
            import_module(package)
        except ImportError:
            extra = "executorch" if package == "executorch" else "'expertfleet[export]'"
            raise ExportError(
                f"{package} is not installed: pip install {extra}"
            ) from None


def _no_static_form(servable: Servable, error: Exception) -> ExportError:
    kind = type(servable.predictor).__name__
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ExportError(f"{kind} of run {servable.run} cannot be exported: {reason}")
