"""What a device's profile amounts to in experts, worked out by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from common.cost import (
    RUNTIME,
    training_copies,
    training_memory,
    training_work,
    upload,
)
from common.local_method import LocalMethod
from common.moe import ModelSpec
from common.settings import Settings
from common.settings.training_settings import TrainingSettings
from server_app.fleet.budget import DeviceBudget
from server_app.fleet.client import Link
from tests.server_app.strategies.handmade import profile as profile_of

# An expert: 64 x 1000 + 1000 + 1000 x 10 + 10 = 75 010 values of 4 bytes.
EXPERT = 300_040
EXTRACTOR = (64 * 64 + 64) * 4
GATE = (64 * 4 + 4) * 4
SPEC = ModelSpec(
    backbone="mlp",
    input_shape=(1, 8, 8),
    num_classes=10,
    num_experts=4,
    expert_hidden=1000,
    top_k=1,
)


def budget_of(**config: Any) -> DeviceBudget:
    base = {"num-experts": 4, "expert-hidden": 1000, "local-epochs": 2}
    return DeviceBudget(Settings.from_run_config({**base, **config}), SPEC, 4)


def test_memory_of_training_by_hand() -> None:
    copies = training_copies(TrainingSettings())
    cost = training_memory(
        SPEC, batch=1, train_samples=10, test_samples=0, more_copies=copies
    )
    # Message, vectors, weights, gradients and momentum of what is held, the largest
    # tensor once more, 10 inputs of 64 values.
    held = np.arange(1, 5)
    expected = (
        RUNTIME + 5 * (EXTRACTOR + GATE + held * EXPERT) + 64 * 1000 * 4 + 10 * 64 * 4
    )
    np.testing.assert_allclose(cost, expected)


def test_work_and_upload_by_hand() -> None:
    flops = 2 * (64 * 64 + 64 * 4)  # extractor and gate
    np.testing.assert_allclose(
        training_work(SPEC), 3 * (flops + 2 * (64 * 1000 + 1000 * 10))
    )
    np.testing.assert_allclose(upload(SPEC), EXTRACTOR + EXPERT * np.arange(1, 5))


def test_soft_routing_costs_operations_for_every_expert() -> None:
    work = training_work(replace(SPEC, top_k=0))
    np.testing.assert_allclose(np.diff(work), 3 * 2 * (64 * 1000 + 1000 * 10))


@pytest.mark.parametrize("experts", [1, 2, 3])
def test_memory_limits_what_is_held(experts: int) -> None:
    budget = budget_of(**{"capacity-margin": 0.1})
    profile = profile_of(memory_available=10**9, process_bytes=10**8)
    needed = budget.memory(profile)
    enough = int(np.ceil(needed[experts - 1] / 0.9)) + 1
    fits = profile_of(memory_available=enough, process_bytes=10**8)
    assert budget(4, fits, Link()) == experts
    short = profile_of(memory_available=enough - 100, process_bytes=10**8)
    assert budget(4, short, Link()) == experts - 1


def test_the_tier_caps_what_would_fit_and_the_owner_overrules_both() -> None:
    budget = budget_of()
    plenty = {"memory_available": 10**11, "process_bytes": 10**8}
    assert budget(2, profile_of(**plenty), Link()) == 2
    assert budget(2, profile_of(**plenty, expert_cap=3), Link()) == 3
    assert budget(2, profile_of(memory_available=1, process_bytes=1), Link()) == 0
    tiny = profile_of(memory_available=1, process_bytes=1, expert_cap=1)
    assert budget(2, tiny, Link()) == 1


def test_nothing_that_a_clock_measured_counts_unless_asked_for() -> None:
    slow = profile_of(flops_per_second=1.0, uplink=1.0)
    assert budget_of()(3, slow, Link(speed=1.0)) == 3


def test_time_and_uplink_limit_when_asked_for_but_never_below_one() -> None:
    asked = budget_of(**{"upload-seconds": 10.0, "capacity-margin": 0.0})
    two = (EXTRACTOR + 2 * EXPERT) / 10
    assert asked(4, profile_of(uplink=two), Link()) == 2
    assert asked(4, profile_of(), Link(speed=two)) == 2
    assert asked(4, profile_of(uplink=1.0), Link()) == 1
    timed = budget_of(**{"train-seconds": 1.0, "capacity-margin": 0.0})
    # 100 samples, 2 epochs; with top-1 routing every number of experts takes as long.
    enough = float(200 * training_work(SPEC)[0])
    assert timed(4, profile_of(flops_per_second=enough), Link()) == 4
    assert timed(4, profile_of(flops_per_second=enough / 2), Link()) == 1


def test_a_second_model_takes_memory_and_time_and_private_parts_no_link() -> None:
    settings = Settings.from_run_config(
        {"local-epochs": 2, "train-seconds": 1.0, "upload-seconds": 10.0}
        | {"capacity-margin": 0.0}
    )
    ditto = LocalMethod(method="ditto", personal_epochs=2, pull=1.0)
    budget = DeviceBudget(settings, SPEC, 4, method=ditto, private_parts=["extractor"])
    profile = profile_of(memory_available=10**9, process_bytes=0)
    # Five of a second training, one of them what is sent back, four to be pulled to w.
    held = EXTRACTOR + GATE + EXPERT * np.arange(1, 5)
    one, two = (
        training_memory(SPEC, batch=1, train_samples=1, test_samples=0, more_copies=m)
        for m in (1, training_copies(settings.training, ditto))
    )
    np.testing.assert_allclose(two - one, 9 * held)
    more = budget.memory(profile) - budget_of().memory(profile)
    assert more[-1] == 9 * held[-1]  # of one expert, evaluation takes more
    # 100 samples, 2 and 2 epochs; the extractor is not sent.
    enough = float(400 * training_work(SPEC)[0])
    assert budget.limits(profile_of(flops_per_second=enough), Link()).time == 4
    assert budget.limits(profile_of(flops_per_second=0.9 * enough), Link()).time == 0
    assert budget.limits(profile_of(uplink=EXPERT / 5), Link()).uplink == 2


def test_who_chooses_among_models_holds_all_of_them() -> None:
    settings = Settings.from_run_config({"local-epochs": 2, "test-samples": 1})
    dense = replace(SPEC, num_experts=1)
    profile = profile_of(memory_available=10**9, process_bytes=0, num_examples=10)
    [one] = DeviceBudget(settings, dense, 1).memory(profile)
    four = DeviceBudget(settings, dense, 1, method=LocalMethod(candidates=4))
    held, inputs = EXTRACTOR + EXPERT + (64 + 1) * 4, 10 * 64 * 4
    # The message and the vectors of four, and the one model they are tried in; of 10
    # samples at once, the 1000 values inside an expert are the largest.
    chooses = RUNTIME + 9 * held + 10 * 1000 * 4 + inputs
    assert four.memory(profile) == pytest.approx([chooses])
    assert one < chooses
    # Four passes forward are four thirds of an epoch more.
    work = 10 * float(training_work(dense)[0])
    asked = {"local-epochs": 2, "capacity-margin": 0.0, "train-seconds": 1.0}
    timed = Settings.from_run_config(asked)
    budget = DeviceBudget(timed, dense, 1, method=LocalMethod(candidates=4))
    for epochs, affords in ((2 + 4 / 3, 1), (3.3, 0)):
        fast = profile_of(flops_per_second=work * epochs * 1.0001, num_examples=10)
        assert budget.limits(fast, Link()).time == affords


def test_a_budget_may_be_a_width() -> None:
    settings = Settings.from_run_config(
        {"capacity-margin": 0.0, "train-seconds": 1.0, "upload-seconds": 1.0}
        | {"local-epochs": 1}
    )
    widths = (0.25, 0.5, 1.0)
    dense = replace(SPEC, num_experts=1)
    budget = DeviceBudget(settings, dense, 3, widths=widths)
    costs = {
        of: [float(of(replace(dense, width=width))[0]) for width in widths]
        for of in (training_work, upload)
    }
    plenty = {"memory_available": 10**10, "process_bytes": 0}
    needed = budget.memory(profile_of(**plenty))
    assert needed.shape == (3,) and (np.diff(needed) > 0).all()
    for k in range(3):
        tight = profile_of(memory_available=int(needed[k]) + 1, process_bytes=0)
        assert budget(3, tight, Link()) == k + 1
        assert budget.holds_everything(tight) == (k == 2)
        speed = profile_of(flops_per_second=100 * costs[training_work][k])
        assert budget.limits(speed, Link()).time == k + 1
        link = profile_of(uplink=costs[upload][k])
        assert budget.limits(link, Link()).uplink == k + 1
    # A quarter of the channels: about a sixteenth of the extractor, a quarter of an
    # expert's hidden units, each of which sees a quarter of the features.
    assert costs[upload][0] < 0.27 * costs[upload][2]


@pytest.mark.parametrize(
    ("config", "copies"),
    [
        ({}, 1),
        ({"momentum": 0.0}, 0),
        ({"optimizer": "adamw"}, 2),
        # A user's own, measured: both moments and the largest second one.
        ({"optimizer": "tests.common.test_optimizers:amsgrad"}, 3),
        ({"precision": "bfloat16"}, 1.5),
    ],
)
def test_what_an_optimizer_keeps_counts(config: dict[str, Any], copies: float) -> None:
    profile = profile_of(memory_available=10**9, process_bytes=0, num_examples=1)
    few = {"batch-size": 1, "test-samples": 10}  # training is what takes the most
    bare = budget_of(momentum=0.0, **few).memory(profile)
    found = budget_of(**config, **few).memory(profile)
    held = EXTRACTOR + GATE + 4 * EXPERT
    assert found[-1] - bare[-1] == copies * held


def test_an_int8_upload_affords_more_experts() -> None:
    # A byte a weight, 4 bytes for each bias and each row's scale: 64 x 64 + 128 x 4
    # of the extractor, 64 x 1000 + 1000 x 10 + 2 x (1000 + 10) x 4 of an expert.
    extractor, expert = 4_608, 82_080
    speed = (extractor + 3 * expert) / 10
    asked = {"upload-seconds": 10.0, "capacity-margin": 0.0}
    coded = budget_of(**asked, **{"upload-dtype": "int8"})
    assert coded(4, profile_of(uplink=speed), Link()) == 3
    assert coded(4, profile_of(uplink=speed - 1), Link()) == 2
    # In float32 not even one would fit in time; one is always allowed.
    assert budget_of(**asked)(4, profile_of(uplink=speed), Link()) == 1


def test_a_link_is_known_from_its_transfers() -> None:
    link = Link()
    link.observe(elapsed=5.0, worked=1.0, nbytes=0)
    assert (link.latency, link.speed) == (4.0, 0.0)
    link.observe(elapsed=16.0, worked=2.0, nbytes=10_000_000)  # 10 s beyond latency
    assert link.speed == 1_000_000
    link.observe(elapsed=16.0, worked=2.0, nbytes=20_000_000)
    assert link.speed == pytest.approx(0.7e6 + 0.6e6)
    link.observe(elapsed=5.5, worked=1.0, nbytes=10)  # too quick to say anything
    assert link.speed == pytest.approx(1.3e6)


def test_who_can_hold_everything_is_up_to_memory_and_owner_not_to_the_tier() -> None:
    budget = budget_of(**{"capacity-margin": 0.0, "upload-seconds": 1e-9})
    assert budget.holds_everything(profile_of())  # a virtual client
    profile = profile_of(memory_available=10**9, process_bytes=10**8, uplink=1.0)
    needed = int(np.ceil(budget.memory(profile)[3]))
    for has, holds in ((needed, True), (needed - 1, False)):
        said = {"memory_available": has, "process_bytes": 10**8, "uplink": 1.0}
        assert budget.holds_everything(profile_of(**said)) == holds
        # The owner's word wins over what was measured, both ways.
        for cap in (3, 4):
            capped = profile_of(**said, expert_cap=cap)
            assert budget.holds_everything(capped) == (cap == 4)
