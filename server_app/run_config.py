"""Whether a run-config can be used, told before a device is contacted."""

from collections.abc import Mapping
from typing import Any

from common.code_hash import code_hash
from common.data import FOLDERS, client_partition, parse_partition
from common.errors import SettingsError
from common.own.client_folders import client_folders
from common.settings import Settings
from common.shape import dataset_of, model_spec, server_task
from common.trial import try_parts
from server_app.callbacks.callbacks import find_callbacks
from server_app.fitness import find_scorer
from server_app.merging.robust import merging_rule
from server_app.rounds.evaluation import own_test_set
from server_app.strategies import find_strategy


def check_run_config(run_config: Mapping[str, Any], clients: int | None = None) -> None:
    """Check everything a run-config says before a device is contacted.

    Loads the data set (a download happens here), so that a name or file that cannot
    be used is known as well.

    Parameters
    ----------
    run_config : mapping of str to scalar
    clients : int, optional
        Simulated clients, where they are known: then there must be as many as
        ``min-replies``, and samples for each.

    Raises
    ------
    ValueError
        SettingsError or DataError: one line that names the key or file, the value and
        what is allowed.
    """
    settings = Settings.from_run_config(run_config)
    strategy = find_strategy(settings.run.strategy)
    strategy.parse_options(settings)
    find_scorer(settings.assignment.fitness)
    merging_rule(settings.merge)
    code_hash(settings)
    find_callbacks(settings)
    task = server_task(settings)
    own_test_set(settings, task)
    spec = model_spec(settings, task)
    strategy.shape(spec)
    try_parts(spec, settings.training)
    if clients is not None:
        check_fleet(settings, clients)


def check_fleet(settings: Settings, clients: int) -> None:
    """Check that a simulation with so many clients can be.

    Raises
    ------
    ValueError
        As :func:`check_run_config`: they give too few replies, there are not as many
        folders, or too few samples for each.
    """
    needed = settings.rounds.min_replies
    if needed > clients:
        raise SettingsError(
            f"min-replies = {needed} is not allowed with clients = {clients}: expected "
            f"{clients} at most"
        )
    if settings.data.task:
        if settings.data.partition != FOLDERS:
            raise SettingsError(
                f"partition = {settings.data.partition!r} is not allowed with task in "
                "a simulation: choose 'folders', <data-dir>/<client>/..."
            )
        client_folders(settings.data.data_dir, clients)
        return
    # As every client will cut it for itself; cached, so a run in this process gains.
    client_partition(
        dataset_of(settings),
        parse_partition(settings.data.partition),
        clients,
        settings.run.seed,
        reserved=settings.data.reserved_samples,
        train_samples=settings.data.train_samples,
    )
