"""An ONNX file: how it is run, labelled and made int8. What is in it: ``export``.

Needs the extra ``export``.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Run = Callable[[NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]
"""Samples as a file takes them to probabilities and experts."""


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


def label(file: Path, facts: Mapping[str, str]) -> None:
    """Say what the file is, and drop the exporter's notes: sources, paths, traces."""
    onnx = import_module("onnx")
    model = onnx.load(file)
    graph = model.graph
    for item in (graph, *graph.node, *graph.value_info, *graph.initializer):
        del item.metadata_props[:]
    onnx.helper.set_model_props(model, dict(facts))
    onnx.save(model, file)


def quantise(file: Path, x: NDArray[Any], folder: Path) -> Path:
    """Write an int8 file beside it, ranges taken from these samples."""
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
