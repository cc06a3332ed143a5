"""A fleet that nothing happens to: TLS, registered keys, orders and replies."""

from pathlib import Path

import pytest

from tests.deployment.fleet import Fleet
from tests.deployment.test_survival import (
    CONFIG,
    assert_same_as_in_one_process,
    gates,
    repliers,
)

pytestmark = [pytest.mark.deployment, pytest.mark.smoke, pytest.mark.timeout(1200)]


def test_a_fleet_trains_the_bits_of_one_process_and_keeps_its_gates(
    fleet: Fleet, tmp_path: Path
) -> None:
    config = {**CONFIG, "num-rounds": 2, "min-replies": 3}
    run = fleet.submit(config)
    assert fleet.finish(run) == "finished:completed", fleet.log(run)
    for record in run.records():
        assert repliers(record) == ["client-0", "client-1", "client-2"]
        assert record["rejected"] == {}
    assert_same_as_in_one_process(run, config, tmp_path)
    for device in range(3):
        assert "gate-2.npy" in gates(fleet, run, device)
