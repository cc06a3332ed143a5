"""What a client leaves out of its answers with ``private-reports = "leave-out"``.

All that is worked out of its samples, beside its update, which is clipped and gets
noise. What takes its place says nothing and passes every check. Both sides call it: the
device so that nothing leaves it, the server so that nothing else is learnt from.
"""

import math
from collections.abc import Sequence

from common.errors import DataError
from common.wire import QueryReply, TrainReport


def without_samples(report: TrainReport) -> TrainReport:
    """Return a report that says nothing of the samples it was trained on."""
    return report.model_copy(
        update={
            "num_examples": 1,
            "expert_samples": [0 for _ in report.expert_samples],
            "expert_accuracy": _nothing(report.expert_accuracy),
            "expert_loss": _nothing(report.expert_loss),
            "gate_mass": _nothing(report.gate_mass),
            "responsibility": _nothing(report.responsibility),
            "input_information": _nothing(report.input_information),
            "label_information": _nothing(report.label_information),
            "train_loss": 0.0,
            "candidate": 0,
            "client_global": None,
            "client_local": None,
            "local_counts": [],
            "memory_peak": None,
            "metrics": {},
        }
    )


def evenly_used(report: TrainReport, samples: int, num_classes: int) -> TrainReport:
    """Return a report as if every expert held had been sent its share, and guessed.

    With ``privacy = "device"`` updates are not all of weight 1, and what a device holds
    is no secret: so experts keep a weight, and a fitness that nothing is learnt from.
    """
    held = max(1, len(report.expert_samples))
    return report.model_copy(
        update={
            "num_examples": samples,
            "expert_samples": [samples // held for _ in report.expert_samples],
            "expert_accuracy": [1 / num_classes for _ in report.expert_accuracy],
            "expert_loss": [math.log(num_classes) for _ in report.expert_loss],
        }
    )


def check_enough(rows: int, train: int, least: int) -> None:
    """Check on the device what the server cannot see then.

    Raises
    ------
    DataError
        If there are too few samples, without saying how many.
    """
    if rows < least or not train:
        raise DataError(f"has fewer samples than the task asks for: {max(1, least)}")


def without_data(profile: QueryReply, least: int) -> QueryReply:
    """Return what a client says of itself, without what it says of its data.

    Parameters
    ----------
    least : int
        Samples that it has at least, of which everybody may know.
    """
    changes: dict[str, object] = {
        "num_examples": max(1, least),
        "rows": max(1, least),
        "unreadable": 0,
        "per_class": [],
        "warnings": [],
    }
    if not profile.num_partitions:
        changes |= {"data_hash": "", "test_hash": "", "test_samples_hash": ""}
    names = ("moments", "statistic")
    changes |= {
        field: [] for field in QueryReply.model_fields if field.startswith(names)
    }
    return profile.model_copy(update=changes)


def _nothing(values: Sequence[float]) -> list[float]:
    return [0.0] * len(values)
