"""Relative paths of a run whose process was not started where the user stands.

``make simulate`` and ``simulate`` make every path absolute before a run starts. A plain
``flwr run`` hands them on as they are, to a SuperLink that Flower starts once, in some
directory, and uses for every app on the machine: there ``data`` is whoever's was first.
Nothing tells that process where ``flwr run`` was called, so it may not guess. In a real
fleet a path is one of the machine that uses it, and its owner chose the directory.
"""

import logging
from pathlib import Path

from common.data import DATASETS, FOLDERS
from common.errors import SettingsError
from common.hub import is_path
from common.settings import Settings
from common.settings.run_settings import RunSettings

logger = logging.getLogger("flwr.expertfleet")

_DEFAULT_OUTPUT = RunSettings().output_dir


def own_places(settings: Settings) -> Settings:
    """Return settings with absolute paths only.

    The default ``output-dir`` becomes one of the user's, ``~/expertfleet/results``;
    ``data-dir`` may stay where the data set is in a package, or on the devices.

    Raises
    ------
    SettingsError
        If another path is relative.
    """
    given = {
        "data-dir": settings.data.data_dir if _reads_files(settings) else "",
        "state-dir": settings.run.state_dir,
        "resume-from": settings.run.resume_from,
        "replay-arrivals": settings.run.replay_arrivals,
        "fleet-list": settings.run.fleet_list,
        "task": settings.data.task,
        "test-data": settings.data.test_data,
    }
    if is_path(settings.model.pretrained):
        given["pretrained"] = settings.model.pretrained
    if settings.run.output_dir != _DEFAULT_OUTPUT:
        given["output-dir"] = settings.run.output_dir
    for key, value in given.items():
        if value and not Path(value).is_absolute():
            raise SettingsError(
                f"{key} = {value!r} is not allowed here: this process runs in "
                f"{Path.cwd()}, wherever `flwr run` was called; give the whole path, "
                f'as in {key}="/home/me/{Path(value).name}", or use make simulate'
            )
    if "output-dir" in given:
        return settings
    output = Path.home() / "expertfleet" / _DEFAULT_OUTPUT
    logger.info("results go below %s (output-dir)", output)
    run = settings.run.model_copy(update={"output_dir": str(output)})
    return settings.model_copy(update={"run": run})


def _reads_files(settings: Settings) -> bool:
    if settings.data.task:  # devices say themselves where their data are
        return settings.data.partition == FOLDERS
    source = DATASETS.get(settings.data.dataset)
    return bool(settings.data.reader) or source is None or bool(source.files)
