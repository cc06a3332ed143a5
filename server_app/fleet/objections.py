"""Why a device may not take part, by what it says of itself; pure checks."""

from common import refusals
from common.code_hash import DIGITS, code_hash, outside_sources
from common.settings import Settings
from common.shape import checkpoint_hash
from common.task import Task
from common.wire import QueryReply
from server_app.fleet.stated import impossible, stated_moments

Share = tuple[int, int, str]


def objection(
    profile: QueryReply, registered: str, settings: Settings, task: Task
) -> str:
    """Return why a device may not take part; "" if it may.

    Parameters
    ----------
    registered : str
        The name of its key; "" without authentication.
    task : Task
        That it was asked with.
    """
    if registered and registered != profile.client:
        return (
            f"it calls itself {profile.client!r} (name in its node configuration), but "
            f"its key is registered as {registered!r}"
        )
    mine, its = code_hash(settings), profile.code_hash
    if its[:DIGITS] != mine[:DIGITS]:
        return (
            f"runs other code ({its}, the server has {mine}); is an older SuperLink "
            "still running?"
        )
    if its != mine:
        return (
            f"has another version of {', '.join(outside_sources(settings))} than the "
            f"server ({its[DIGITS:]}, not {mine[DIGITS:]})"
        )
    if profile.checkpoint != checkpoint_hash(settings):
        return (
            "its pretrained checkpoint has another configuration or tokeniser than the "
            "server's"
        )
    if profile.task_hash != task.digest:
        return (
            f"understands another task than the server's ({profile.task_hash or 'none'}"
            f", not {task.digest})"
        )
    if not profile.num_partitions:
        return _of_own_data(profile, task)
    if settings.data.task:
        return refusals.of_share(profile.partition_id, profile.num_partitions)
    return ""


def _of_own_data(profile: QueryReply, task: Task) -> str:
    """Return why data of a device's own cannot be trained on; "" if they can."""
    rows, samples = profile.rows, profile.num_examples
    if reason := refusals.of_samples(rows, samples, task):
        return reason
    counts = profile.per_class
    if samples > rows or sum(counts) > rows:
        most = max(samples, sum(counts))
        return f"states {most} samples to train on, of {rows} that it has"
    if counts and len(counts) != task.num_classes:
        return (
            f"states samples of {len(counts)} classes, the task has {task.num_classes}"
        )
    moments = stated_moments(profile)
    if moments is None:
        return "states no moments of its samples" if task.needs_moments else ""
    return impossible(moments, task, samples)


def share(profile: QueryReply) -> Share | None:
    """Return which share of which partition a device has; None for data of its own."""
    if profile.num_partitions <= 1:
        return None
    return profile.partition_id, profile.num_partitions, profile.partition_hash


def double(profile: QueryReply, name: str, node: int) -> str:
    """Return why a device may not take part beside a client that is here.

    Parameters
    ----------
    name, node : str, int
        Of that client.
    """
    if name == profile.client:
        return (
            f"node {node} is here under this name: every device needs a name of its "
            "own (name in its node configuration)"
        )
    return (
        f"{name} is here with the same share of the data: partition-id = "
        f"{profile.partition_id} of {profile.num_partitions}"
    )
