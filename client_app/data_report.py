"""What lies on this device, and whether and how it could take part in a run.

Worked out on the device and told to nobody. Not here: how it is printed
(``client_app.commands.check_data``).
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client_app.device import profiler
from client_app.device.speed import step_seconds
from common import refusals
from common.cost import training_copies, training_memory
from common.errors import DataError
from common.moe import ModelSpec
from common.own.found import Skipped
from common.own.own_data import OwnData, open_own_data
from common.settings import Settings
from common.shape import model_spec, tokeniser_for
from common.task import Task

NAMED = 3
"""Names given of the samples that were skipped for one reason."""


@dataclass(frozen=True, kw_only=True)
class Channel:
    """The numbers of one channel or column, in the samples to train on.

    Attributes
    ----------
    name : str
    missing : float
        Share of empty cells.
    least, most, mean, std : float
        In the numbers of the files; images from 0 to 255.
    """

    name: str
    missing: float
    least: float
    most: float
    mean: float
    std: float


@dataclass(frozen=True, kw_only=True)
class RoundCost:
    """What a round would take, as far as it can be known before.

    Attributes
    ----------
    memory_one, memory_all : int
        Bytes of this process with one expert of each layer, and with all.
    memory_available : int
        Bytes that the device has for it.
    seconds_one, seconds_all : float
        Of training alone.
    experts : int
        Experts of each layer.
    """

    memory_one: int
    memory_all: int
    memory_available: int
    seconds_one: float
    seconds_all: float
    experts: int


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """What was found; nothing is empty only where ``reason`` is.

    Attributes
    ----------
    reason : str
        Why the device cannot take part; "" if it can.
    path, kind, format : str
        What was read, the kind of its samples, and the endings of the files.
    rows, train, held_out, own_test : int
        Samples that are used; those trained on; those kept for the device's own
        measure, and how many of them their owner put aside for testing.
    classes, held_out_classes : dict of str to int
        Samples of every class of the task, all and held out.
    groups, copies : int
        Groups that stay on one side of that cut, and samples that are an exact copy of
        another one.
    channels : list of Channel
    skipped : dict of str to list of str
        Reasons, and the names of what was skipped for it.
    notes : list of str
        What its owner should know.
    cache_bytes, seconds_decode : int, float
        Disk for the decoded samples, and the time it took to have them.
    round : RoundCost or None
        None where nothing can be trained on.
    """

    path: str
    kind: str
    reason: str = ""
    format: str = ""
    rows: int = 0
    train: int = 0
    held_out: int = 0
    own_test: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    held_out_classes: dict[str, int] = field(default_factory=dict)
    groups: int = 0
    copies: int = 0
    channels: list[Channel] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    cache_bytes: int = 0
    seconds_decode: float = 0.0
    round: RoundCost | None = None


def report_on(
    path: Path, task: Task, settings: Settings, state_dir: str = ""
) -> DataReport:
    """Look at data of a device's own as the device itself will.

    Parameters
    ----------
    path : Path
        File or folder.
    task : Task
    settings : Settings
        Of the run it is to take part in.
    state_dir : str
        Where decoded samples stay, so that no round decodes them again; "" for a
        temporary file.

    Raises
    ------
    SettingsError
        If the settings do not go with the task.
    """
    spec = model_spec(settings, task)
    started = time.perf_counter()
    try:
        cache = Path(state_dir) / "data" if state_dir else None
        own = open_own_data(path, task, tokeniser_for(settings), cache)
    except DataError as error:
        return DataReport(path=str(path), kind=task.kind, reason=str(error))
    seconds = time.perf_counter() - started
    each = _round(own, spec, settings)
    told = f"{len(own.skipped)} skipped: "  # more of it is in ``skipped``
    return DataReport(
        path=str(path),
        kind=task.kind,
        reason=_refusal(own, task, each, settings),
        format=own.format,
        rows=own.rows,
        train=len(own.train),
        held_out=len(own.held_out),
        own_test=0 if own.own_test is None else len(own.own_test),
        classes=_by_class(own.per_class, task),
        held_out_classes=_by_class(_counts(own, own.held_out), task),
        groups=own.groups,
        copies=own.copies,
        channels=_channels(own, task),
        skipped=_reasons(own.skipped),
        notes=[note for note in own.notes if not note.startswith(told)],
        cache_bytes=own.x.nbytes,
        seconds_decode=seconds,
        round=each,
    )


def _refusal(
    own: OwnData, task: Task, each: RoundCost | None, settings: Settings
) -> str:
    """Return why the server would refuse this device, in its words."""
    if reason := refusals.of_samples(own.rows, len(own.train), task):
        return reason
    assert each is not None  # where there is something to train on
    usable = (1 - settings.rounds.capacity_margin) * each.memory_available
    return refusals.of_memory(each.memory_available) if each.memory_one > usable else ""


def _counts(own: OwnData, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.bincount(own.y[rows], minlength=own.num_classes)


def _by_class(counts: NDArray[np.int64], task: Task) -> dict[str, int]:
    return {name: int(n) for name, n in zip(task.classes, counts, strict=True)}


def _reasons(skipped: list[Skipped]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in skipped:
        found.setdefault(each.reason, []).append(each.name)
    return found


def _channels(own: OwnData, task: Task) -> list[Channel]:
    moments = own.moments()
    if moments is None:
        return []
    each = len(own.train) * int(np.prod(task.input_shape)) / task.num_channels
    return [
        Channel(
            name=name,
            missing=float(1 - moments.count[c] / each),
            least=float(moments.least[c] * task.full),
            most=float(moments.most[c] * task.full),
            mean=float(moments.mean[c] * task.full),
            std=float(moments.std[c] * task.full),
        )
        for c, name in enumerate(task.channel_names)
    ]


def _round(own: OwnData, spec: ModelSpec, settings: Settings) -> RoundCost | None:
    if not len(own.train):
        return None
    training, has = settings.training, profiler.memory()
    costs = has["process_bytes"] + training_memory(
        spec,
        batch=training.batch_size,
        train_samples=len(own.train),
        test_samples=len(own.held_out),
        more_copies=training_copies(training),
    )
    steps = training.local_epochs * -(-len(own.train) // training.batch_size)
    batch = min(training.batch_size, len(own.train))
    return RoundCost(
        memory_one=int(costs[0]),
        memory_all=int(costs[-1]),
        memory_available=has["memory_available"],
        seconds_one=steps * step_seconds(spec, 1, batch),
        seconds_all=steps * step_seconds(spec, spec.num_experts, batch),
        experts=spec.num_experts,
    )
