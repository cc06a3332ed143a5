"""CentMoE: no client is asked for anything (docs/methods.md, 4)."""

from typing import Any

import numpy as np
import pytest
import torch

from common.errors import SettingsError
from common.moe import EXTRACTOR, GATE
from common.settings import Settings
from common.shape import dataset_of, model_spec
from server_app.run_config import check_run_config
from server_app.strategies.cent_moe import CentMoE
from server_app.strategies.server_training import reserved_tensors
from tests.server_app.strategies.handmade import view_of


def test_three_rounds_without_a_message(exercise: Any) -> None:
    strategy, records = exercise("cent-moe", **{"reserved-samples": 40})
    for record in records:
        assert record.clients == []
        assert record.load == [0, 0, 0]
        assert record.cv_round is record.cv_cumulative is None
        assert record.bytes_down == record.bytes_up == 0
    start = CentMoE(strategy.settings, strategy.spec)
    for part in (EXTRACTOR, GATE):
        assert not np.array_equal(strategy.model[part], start.model[part])


def test_it_learns_the_reserved_set() -> None:
    config = {"strategy": "cent-moe", "reserved-samples": 40, "num-experts": 2}
    settings = Settings.from_run_config({**config, "strategy-options": "epochs=60"})
    strategy = CentMoE(settings, model_spec(settings, dataset_of(settings)))
    strategy.plan(view_of([1, 1], 2))
    strategy.finish()
    x, y = reserved_tensors(settings)
    answers = strategy.global_model().eval()(x)
    torch.testing.assert_close(answers.sum(1), torch.ones(40))
    assert (answers.argmax(1) == y).double().mean() > 0.9


def test_reserved_samples_are_needed() -> None:
    with pytest.raises(SettingsError, match=r"reserved-samples = 0.*'cent-moe'"):
        check_run_config({"strategy": "cent-moe"})
