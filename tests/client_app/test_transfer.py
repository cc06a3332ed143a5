"""Cache and error feedback of one client, over both homes."""

import numpy as np
import pytest
from flwr.app import Array
from safetensors.numpy import save

from client_app.kept.home import Home
from client_app.kept.residuals import Residuals
from client_app.kept.store import Store
from client_app.transfer import PartsLackedError, Transfer
from common import wire
from common.moe import ModelSpec, Vector
from common.wire import ROOM, Packing, TrainOrder

SPEC = ModelSpec(
    backbone="mlp",
    input_shape=(1, 2, 2),
    num_classes=2,
    num_experts=40,
    expert_hidden=3,
    top_k=1,
)


@pytest.fixture
def store(home: Home) -> Store:
    return home.store("run")


def order(server_round: int, experts: list[int], **changes: object) -> TrainOrder:
    fields = {
        "run": "run",
        "server_round": server_round,
        "experts": experts,
        "num_experts": 40,
        "top_k": 1,
    }
    return TrainOrder(**{**fields, **changes})  # type: ignore[arg-type]


def packed(experts: list[int], seed: int = 0) -> dict[str, Array]:
    names = ["extractor", *(f"expert.{e}" for e in experts)]
    return wire.pack(SPEC.initial(seed, names))


def receive(
    store: Store, order: TrainOrder, arrays: dict[str, Array]
) -> tuple[dict[str, Vector], list[str]]:
    transfer = Transfer(order, SPEC, store, cached=True)
    vectors = transfer.receive(wire.encode_order(order, arrays))
    return vectors, transfer.holds()


def recalling(server_round: int, arrays: dict[str, Array]) -> TrainOrder:
    experts = [int(name[7:]) for name in arrays if name != "extractor"]
    versions = [wire.version(array) for array in arrays.values()]
    return order(
        server_round, experts, cached_parts=[*arrays], cached_versions=versions
    )


def test_what_was_sent_once_is_there_bit_by_bit(store: Store) -> None:
    arrays = packed([1, 4])
    first, holds = receive(store, order(1, [1, 4]), arrays)
    assert sorted(holds) == sorted(wire.version(array) for array in arrays.values())
    again, _ = receive(store, recalling(2, arrays), {})
    assert again.keys() == first.keys()
    for name, vector in first.items():
        np.testing.assert_array_equal(again[name], vector)


def test_another_version_is_lacked_never_replaced(store: Store) -> None:
    receive(store, order(1, [1]), packed([1]))
    newer = packed([1], seed=9)
    with pytest.raises(PartsLackedError) as caught:
        receive(store, recalling(2, newer), {})
    assert sorted(caught.value.parts) == ["expert.1", "extractor"]


def test_a_damaged_entry_is_lacked(store: Store) -> None:
    arrays = packed([1])
    receive(store, order(1, [1]), arrays)
    [name] = [n for n in store.names("parts/") if "expert.1" in n]
    data = store.read(name)
    assert data is not None
    for damaged in (data[:-1] + bytes([data[-1] ^ 1]), data[:40], b""):
        store.write(name, damaged)
        with pytest.raises(PartsLackedError, match=r"expert\.1"):
            receive(store, recalling(2, arrays), {})


def test_a_cache_that_is_off_lacks_everything(store: Store) -> None:
    arrays = packed([1])
    transfer = Transfer(recalling(1, arrays), SPEC, store, cached=False)
    with pytest.raises(PartsLackedError):
        transfer.receive(wire.encode_order(recalling(1, arrays), {}))
    assert transfer.holds() == []


def test_the_cache_keeps_one_version_a_part_and_is_bounded(store: Store) -> None:
    for server_round in range(1, 31):
        arrays = packed([server_round], seed=server_round)
        _, holds = receive(store, order(server_round, [server_round]), arrays)
        assert len(holds) <= 2 * ROOM
        assert len([n for n in store.names("parts/") if "extractor" in n]) == 1
    # The parts of the order and the latest of the others.
    kept = {
        int(name.split("expert.")[1].split("-")[0])
        for name in store.names("parts/")
        if "expert" in name
    }
    assert kept == set(range(24, 31))


def test_a_part_of_no_model_is_refused_and_not_kept(store: Store) -> None:
    arrays = packed([1]) | {"../../evil": Array(np.zeros(3, np.float32))}
    with pytest.raises(wire.WireError, match="evil"):
        receive(store, order(1, [1]), arrays)
    assert store.names("parts/") == []


# --- error feedback -------------------------------------------------------------------

PARTS = ["extractor", "expert.1"]


def send(
    store: Store, server_round: int, deltas: dict[str, Vector], merged: int = -1
) -> dict[str, Vector]:
    """Upload as round ``server_round``; the round before was merged unless said."""
    merged_round = server_round - 1 if merged < 0 else merged
    asked = order(server_round, [1], upload_dtype="int8", merged_round=merged_round)
    rng = np.random.default_rng(server_round)
    arrays = Transfer(asked, SPEC, store, cached=False).send(deltas, rng)
    layouts = {name: SPEC.layout(name) for name in deltas}
    return wire.unpack(arrays, Packing(dtype="int8", layouts=layouts))


def test_nothing_is_lost_over_many_rounds(store: Store) -> None:
    deltas = SPEC.initial(1, PARTS)
    total = {name: np.zeros_like(vector) for name, vector in deltas.items()}
    for server_round in range(1, 41):
        for name, vector in send(store, server_round, deltas).items():
            total[name] += vector
    for name, vector in deltas.items():
        step = np.abs(vector).max() / 127
        # All but the last residual has arrived: one step, not 40 of them.
        assert np.abs(total[name] - 40 * vector).max() < 1.5 * step


def test_a_replayed_round_sends_the_same_bits(store: Store) -> None:
    deltas = SPEC.initial(1, PARTS)
    first = [send(store, server_round, deltas) for server_round in (1, 2, 3)]
    replayed = send(store, 3, deltas)
    for name in PARTS:
        np.testing.assert_array_equal(first[2][name], replayed[name])
    without = send(store, 1, deltas)
    for name in PARTS:
        np.testing.assert_array_equal(first[0][name], without[name])


def test_an_upload_that_was_lost_leaves_nothing_behind(store: Store) -> None:
    deltas = SPEC.initial(1, PARTS)
    send(store, 1, deltas)
    after_one = send(store, 4, deltas, merged=1)
    for lost in (2, 3):
        send(store, lost, deltas, merged=1)
    again = send(store, 4, deltas, merged=1)
    for name in PARTS:
        np.testing.assert_array_equal(after_one[name], again[name])


def test_residuals_are_bounded_and_outlive_a_late_message(store: Store) -> None:
    residuals, sizes = Residuals(store, kept=2), {"a": 2}
    for server_round in (8, 9, 10):
        left = {"a": np.full(2, server_round, np.float32)}
        residuals.save(server_round, left, merged_round=server_round - 1)
    assert len(store.names("residual-")) == 2
    residuals.save(4, {"a": np.zeros(2, np.float32)})
    np.testing.assert_array_equal(residuals.load(10, sizes)["a"], [10, 10])
    assert residuals.load(8, sizes) == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"half",
        b"\xff" * 100,
        save({"extractor": np.zeros(3, np.float32)}),
        save({"extractor": np.zeros(SPEC.size("extractor"), np.float64)}),
        save({"extractor": np.full(SPEC.size("extractor"), np.nan, np.float32)}),
        None,
    ],
)
def test_a_damaged_residual_is_as_if_it_had_never_been(
    store: Store, data: bytes | None
) -> None:
    deltas = SPEC.initial(1, PARTS)
    without = send(store, 2, deltas, merged=0)
    send(store, 1, deltas)
    assert store.warnings == []
    if data is None:
        store.remove("residual-1.safetensors")
    else:
        store.write("residual-1.safetensors", data)
    for name, vector in send(store, 2, deltas).items():
        np.testing.assert_array_equal(vector, without[name])
    [warning] = store.warnings
    assert warning.startswith("residual-1.safetensors is ")


def test_files_that_are_no_residuals_are_passed_over(store: Store) -> None:
    store.write("residual-x.safetensors", b"")
    for vector in send(store, 1, SPEC.initial(1, PARTS)).values():
        assert np.isfinite(vector).all()


def test_parts_that_are_not_finite_are_refused_and_not_kept(store: Store) -> None:
    for bad in (np.nan, np.inf):
        vector = np.full(SPEC.size("expert.1"), bad, np.float32)
        arrays = packed([1]) | {"expert.1": Array(vector)}
        with pytest.raises(wire.WireError, match=r"expert\.1 contains NaN or infinity"):
            receive(store, order(1, [1]), arrays)
    assert store.names("parts/") == []


def test_a_residual_covers_the_last_upload_only(store: Store) -> None:
    deltas = SPEC.initial(1, PARTS)
    send(store, 1, deltas)
    send(store, 2, {"extractor": deltas["extractor"]})
    received = send(store, 3, {"expert.1": deltas["expert.1"]})
    rng = np.random.default_rng(3)
    packing = Packing(dtype="int8", layouts={"expert.1": SPEC.layout("expert.1")})
    plain = wire.unpack(
        wire.pack({"expert.1": deltas["expert.1"]}, packing, rng), packing
    )
    np.testing.assert_array_equal(received["expert.1"], plain["expert.1"])


def test_a_training_that_diverged_does_not_poison_the_next_upload(store: Store) -> None:
    deltas = SPEC.initial(1, PARTS)
    bad = {name: vector * np.float32(np.nan) for name, vector in deltas.items()}
    with pytest.raises(wire.WireError, match="scale"):
        send(store, 1, bad)
    for vector in send(store, 2, deltas).values():
        assert np.isfinite(vector).all()


def test_the_gate_is_never_quantised(store: Store) -> None:
    gate = np.array([0.123456789, 1e-7, 3, 4], np.float32)
    asked = order(1, [1], upload_dtype="int8", gate="shared")
    arrays = Transfer(asked, SPEC, store, cached=False).send(
        {"gate": gate}, np.random.default_rng(0)
    )
    assert arrays["gate"].dtype == "float32"
    np.testing.assert_array_equal(arrays["gate"].numpy(), gate)
