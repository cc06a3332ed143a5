"""A trained mixture as one file for other runtimes: ONNX, int8 ONNX, ExecuTorch.

The exported graph takes samples in the task's own numbers, before they are scaled
(float32, channels first; tokens as int64; NaN is a missing value of a series or a
table), and scales them itself; it gives ``probabilities`` (B, C)
and ``experts`` (B,). Every expert runs and the answers of those chosen are taken.
Every file is run once and compared with torch before it gets its name, and says which
task it is of: an ONNX file in its metadata, a program in a JSON file beside it.

Needs the extra ``export`` (or, for ExecuTorch, the package ``executorch``).
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.files import atomic_write
from common.moe.ensemble import explaining
from common.serving.graph_input import samples_for, stored
from common.serving.onnx_file import Run, label, onnx_runner, quantise
from common.serving.servable import Servable
from common.task import ImageTask, Task
from common.text import first_line

OPSET = 18
TOLERANCE = 1e-4
"""Largest difference of a probability from torch's that a float export may have."""


class ExportError(ValueError):
    """A model cannot be exported; the message says why."""


class Exportable(nn.Module):
    """Scale and mixture as one module.

    Parameters
    ----------
    predictor : nn.Module
    task : Task
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, predictor: nn.Module, task: Task) -> None:
        super().__init__()
        self.mixture = explaining(predictor)
        self.scales = task.model_kind == "float32"
        self.may_miss = self.scales and not isinstance(task, ImageTask)
        channels = (-1, *(1,) * (len(task.input_shape) - 1))
        normaliser = task.normaliser
        for name in ("mean", "std"):
            values = torch.tensor(getattr(normaliser, name)) * normaliser.scale
            self.register_buffer(name, values.reshape(channels))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map stored samples (B, *input_shape) to probabilities and experts."""
        if self.scales:
            x = (x - self.mean) / self.std
        if self.may_miss:
            x = torch.where(torch.isnan(x), torch.zeros_like(x), x)
        return self.mixture.answer(x)


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


def export_onnx(
    servable: Servable, path: Path, calibration: NDArray[Any] | None = None
) -> Exported:
    """Write an ONNX file of opset 18 with a free batch axis.

    Parameters
    ----------
    servable : Servable
    path : Path
    calibration : ndarray, optional
        Samples as stored; given, weights and activations become int8. Ranges are taken
        from four fifths of them, the others are what is compared.

    Raises
    ------
    ExportError
        If the model has no static form, a package is missing, the float file answers
        differently from torch, or there are fewer than two samples.
    """
    _need("onnx", "onnxscript", "onnxruntime")
    task = servable.task
    if calibration is None:
        x, ranges = samples_for(task, 16), None
    else:
        x, ranges = _apart(stored(task, calibration))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        _write_onnx(servable, file)
        if ranges is not None:
            file = quantise(file, ranges, Path(folder))
        limit = TOLERANCE if ranges is None else 1.0
        return _keep(servable, file.read_bytes(), path, onnx_runner(file), x, limit)


def _apart(x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Cut samples, by chance, into those that are compared and those of the ranges.

    What the ranges were taken from fits into them: it says nothing of other samples.
    """
    if len(x) < 2:
        raise ExportError(
            f"{len(x)} sample is too few for int8: expected some to take the ranges "
            "from and others to compare with, at least 2"
        )
    order = np.random.default_rng(0).permutation(len(x))
    compared = max(1, len(x) // 5)
    return x[np.sort(order[:compared])], x[np.sort(order[compared:])]


def export_executorch(servable: Servable, path: Path) -> Exported:
    """Write an ExecuTorch program for one sample at a time, on XNNPACK's kernels.

    Run, round, experts and the task go into :func:`facts_file`.

    Raises
    ------
    ExportError
        As :func:`export_onnx`.
    """
    _need("executorch")
    exir = import_module("executorch.exir")
    xnnpack = import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    x = samples_for(servable.task, 16)
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
        written = _keep(servable, payload, path, runner, x, TOLERANCE)
    facts = _facts(servable)
    facts["expertfleet.task"] = json.loads(facts["expertfleet.task"])
    with _written(facts_file(path)) as beside:
        beside.write(json.dumps(facts, indent=1, ensure_ascii=False).encode() + b"\n")
    return written


def facts_file(path: Path) -> Path:
    """Return where a program's facts are: beside it."""
    return path.with_name(f"{path.name}.json")


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
    return Exportable(servable.predictor, servable.task).eval()


def _write_onnx(servable: Servable, file: Path) -> None:
    # Two samples: an axis of 1 would be taken for one that never changes.
    example = torch.from_numpy(samples_for(servable.task, 2))
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
    label(file, _facts(servable))


def _facts(servable: Servable) -> dict[str, Any]:
    """Return what a file says of itself."""
    return {
        "run": servable.run,
        "round": str(servable.server_round),
        "held-experts": ",".join(map(str, servable.experts)),
        "expertfleet.task": servable.task.to_json(),
    }


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
    with _written(path) as file:
        file.write(payload)
    return Exported(
        path=path,
        nbytes=len(payload),
        difference=difference,
        agreement=float((found.argmax(1) == expected.classes).mean()),
        samples=len(x),
    )


@contextmanager
def _written(path: Path) -> Iterator[IO[bytes]]:
    try:
        with atomic_write(path, 0o644) as file:
            yield file
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror}") from None


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
    reason = first_line(str(error).strip() or type(error).__name__)
    return ExportError(f"{kind} of run {servable.run} cannot be exported: {reason}")
