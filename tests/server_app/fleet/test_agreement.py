"""What server and clients agree on, and what they cannot."""

from pathlib import Path

import pytest

from common.errors import SettingsError
from common.settings import Settings
from server_app.fleet.agreement import Agreement
from tests.server_app.fleet.own import task_file


def test_a_scale_of_the_samples_needs_what_a_private_fleet_leaves_out(
    tmp_path: Path,
) -> None:
    private = {"privacy": "central", "strategy": "fedavg"}
    own = {**private, "task": task_file(tmp_path)}
    with pytest.raises(SettingsError, match="give the task a fixed scale"):
        Agreement(Settings.from_run_config(own))
    assert Agreement(Settings.from_run_config(private)).task
