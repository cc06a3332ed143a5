"""Why a device may not take part, where both sides can say it.

``check-data`` says on the device what the server would. Not here: what only the server
knows (``server_app.fleet.objections``), and files that cannot be read (``common.own``).
"""

from common.task import Task


def of_samples(rows: int, train: int, task: Task) -> str:
    """Return why a device has too few samples; "" if it has enough.

    Parameters
    ----------
    rows, train : int
        Samples it can use, and those of them that it trains on.
    """
    if rows < task.min_samples:
        has = f"{rows} sample{'' if rows == 1 else 's'}"
        return f"has {has}, the task asks for at least {task.min_samples}"
    if not train:
        return f"has nothing to train on: all of its {rows} samples are for testing"
    return ""


def of_share(partition_id: int, num_partitions: int) -> str:
    """Return what is said to a device with a share of a set in a run with a task."""
    return (
        f"has share {partition_id} of {num_partitions} of a data set, but in a run "
        "with a task every device has data of its own: say data-path in its node "
        'configuration, or partition = "folders" for a simulation'
    )


def of_memory(available: int) -> str:
    """Return what is said to a device whose memory, in bytes, trains no expert."""
    return f"its {available / 2**20:.0f} MiB of memory are too few to train one expert"
