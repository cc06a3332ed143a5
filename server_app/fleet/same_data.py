"""Whether server and clients look at the same data, and at those of the run so far.

A data set goes by a name, and a name proves nothing. What the clients of a simulation
see is the server's own file, so anything else is a mistake in how the run was started.
Of a real fleet, a device with a share of the data set must have the server's, cut as
most devices cut it; one with data of its own (no share, or all of a set) may have any,
and more of them than before.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from common.data import Fingerprint, fingerprint
from common.errors import SettingsError
from common.own.marks import Marks, marks_of_set
from common.settings import Settings
from common.shape import dataset_of, server_task
from common.wire import QueryReply

_NO_MEASURE = "client_global is not reported in a round with it"

Cut = tuple[int, str]
"""Into how many shares a data set is cut, and the hash of its partition."""


def unchanged(settings: Settings, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``run.json`` says of the task, or of the server's data set.

    Parameters
    ----------
    facts : mapping
        What ``run.json`` says so far.

    Raises
    ------
    SettingsError
        If the run to be continued had another task, or other data under this name.
    """
    task = server_task(settings)
    if settings.data.task:
        if facts.get("task_hash", task.digest) != task.digest:
            raise SettingsError(
                f"resume-from = {settings.run.resume_from!r}: task = "
                f"{settings.data.task!r} is not the task the run began with"
            )
        return {"task_hash": task.digest}
    now = fingerprint(dataset_of(settings))._asdict()
    before = facts.get("data", now)
    changed = [part for part, value in now.items() if before.get(part) != value]
    if changed:
        raise SettingsError(
            f"resume-from = {settings.run.resume_from!r}: the {' and '.join(changed)} "
            f"data of dataset {settings.data.dataset!r} in data-dir = "
            f"{settings.data.data_dir!r} are not those the run began with"
        )
    return {"data": now}


def check_simulation(
    profiles: Sequence[QueryReply], known: Iterable[QueryReply], settings: Settings
) -> None:
    """Refuse to go on with a simulation that is not the one it was.

    Parameters
    ----------
    profiles : sequence of QueryReply
        Of all who have just answered: virtual clients only.
    known : iterable of QueryReply
        Of the clients known before.

    Raises
    ------
    SettingsError
        If it had another number of clients, or they see other data than the server.
    """
    before = {profile.num_partitions for profile in known}
    for profile in profiles:
        if before - {profile.num_partitions}:
            raise SettingsError(
                f"resume-from = {settings.run.resume_from!r} is a run of "
                f"{max(before)} clients, now there are {profile.num_partitions}: start "
                f"as many as before (--clients {max(before)})"
            )
        reason = _other_data(profile, settings) if profile.num_partitions else None
        if reason is not None:
            raise SettingsError(f"{profile.client}: {reason}")


def refusals(
    said: Mapping[int, QueryReply], known: Iterable[QueryReply], settings: Settings
) -> dict[int, str]:
    """Return whose data do not go with the others', with the reason, by node.

    Parameters
    ----------
    said : mapping of int to QueryReply
        The last word of every node, those that are in first. Of two with one name, the
        first has the say.
    known : iterable of QueryReply
        Of the clients known, which may be away.
    """
    last: dict[str, QueryReply] = {}
    for profile in (*said.values(), *known):
        last.setdefault(profile.client, profile)
    cut = usual_cut(last.values(), settings)
    reasons = {node: refusal(p, cut, settings) for node, p in said.items()}
    return {node: reason for node, reason in reasons.items() if reason is not None}


def usual_cut(said: Iterable[QueryReply], settings: Settings) -> Cut | None:
    """Return how most devices cut the data set, None if none has a share of it.

    Parameters
    ----------
    said : iterable of QueryReply
        The last word of every device, also of those refused: whoever came first must
        not decide for all. Those with data of another kind do not count.

    Returns
    -------
    Cut or None
        Of cuts that are equally frequent, the one that was named first.
    """
    cuts = Counter(
        _cut(profile)
        for profile in said
        if profile.num_partitions > 1 and _other_data(profile, settings) is None
    )
    return cuts.most_common(1)[0][0] if cuts else None


def refusal(profile: QueryReply, cut: Cut | None, settings: Settings) -> str | None:
    """Return why a device's data do not go with those of the others; None if they do.

    Parameters
    ----------
    cut : Cut or None
        See :func:`usual_cut`.
    """
    if profile.num_partitions <= 1:  # its data are its own
        return _numbered_otherwise(profile, settings)
    if (reason := _other_data(profile, settings)) is not None:
        return reason
    if cut is None or cut == _cut(profile):
        return None
    shares, _ = cut
    if profile.num_partitions != shares:
        return (
            f"it has one of {profile.num_partitions} shares of the data set and others "
            f"have one of {shares}, which overlap: give all the same num-partitions"
        )
    return (
        f"it cuts the data set into {shares} shares at other places than others, so "
        "that they overlap: give all the same versions of the packages"
    )


def note(before: QueryReply | None, now: QueryReply, settings: Settings) -> str | None:
    """Return what there is to say of a device that takes part with data of its own.

    Parameters
    ----------
    before : QueryReply or None
        What it said when it was last asked, if it was.
    """
    if before is not None and before.data_hash not in ("", now.data_hash):
        return (
            f"{now.client}: its data have changed, {now.num_examples} samples to train "
            f"on instead of {before.num_examples}"
        )
    if before is None and not settings.data.task:
        if not now.test_hash:
            return f"{now.client}: has no test set, so {_NO_MEASURE}"
        if not servers_test_set(now, settings):
            return (
                f"{now.client}: its test set is not the server's: make sure that both "
                f"number the classes alike; {_NO_MEASURE}"
            )
    return None


def servers_test_set(profile: QueryReply, settings: Settings) -> bool:
    """Whether a device measures itself on the server's own test set."""
    if settings.data.task:  # the server's is on no device
        return False
    if profile.num_partitions:
        return profile.test_hash == _servers(settings).test
    return bool(profile.test_hash) and profile.test_hash == _marks(settings).whole


def _numbered_otherwise(profile: QueryReply, settings: Settings) -> str | None:
    """Return why a device with data of its own numbers its classes wrongly."""
    if settings.data.task or not profile.test_samples_hash:
        return None
    mine = _marks(settings)
    if profile.test_samples_hash != mine.samples or profile.test_hash == mine.whole:
        return None
    return (
        "its test samples are the server's and their labels are not: it numbers the "
        "classes in another way; give its file the server's numbers, or the names of "
        "classes (class_names in an .npz)"
    )


def _marks(settings: Settings) -> Marks:
    return marks_of_set(dataset_of(settings), server_task(settings))


def _cut(profile: QueryReply) -> Cut:
    return profile.num_partitions, profile.partition_hash


def _other_data(profile: QueryReply, settings: Settings) -> str | None:
    if not profile.data_hash or (
        _servers(settings) == (profile.data_hash, profile.test_hash)
    ):
        return None
    return (
        f"its dataset {settings.data.dataset!r} has other samples or labels than the "
        "server's: all who share one must have the same file (a device with data of "
        "its own has num-partitions=1)"
    )


def _servers(settings: Settings) -> Fingerprint:
    if settings.data.task:  # the server has none
        return Fingerprint("", "")
    return fingerprint(dataset_of(settings))
