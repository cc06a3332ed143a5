"""A base that arrives in pieces: what is kept of it, and what is not believed."""

import pytest
import torch
from flwr.app import Array, RecordDict
from torch import nn

from client_app.kept import base_weights
from client_app.kept.base_weights import kept_bytes, take_piece
from client_app.kept.home import Home
from client_app.kept.store import Store
from common import wire
from common.moe.bases import Base, content_version, fill, freeze, read
from common.wire import BasePiece, base_pieces

SIZE = 100


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (base_pieces, base_weights):
        monkeypatch.setattr(module, "PIECE", SIZE)


@pytest.fixture
def store(home: Home) -> Store:
    return home.bases()


def made(seed: int, dtype: torch.dtype = torch.float32) -> Base:
    torch.manual_seed(seed)
    return freeze(nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7)).to(dtype))


def send(store: Store, base: Base, number: int, data: bytes = b"") -> tuple[int, str]:
    """Hand over one piece of a base, or of what claims to be it."""
    data = data or base.to_bytes()
    start = SIZE * number
    piece = BasePiece(base=base.version, start=start, total=len(data))
    return take_piece(store, piece, memoryview(data)[start : start + SIZE])


def send_all(store: Store, base: Base, data: bytes = b"") -> tuple[int, str]:
    count = -(-len(data or base.to_bytes()) // SIZE)
    return [send(store, base, number, data) for number in range(count)][-1]


def test_a_version_is_of_names_shapes_and_values_and_of_no_type() -> None:
    tensors = {"a": torch.tensor([[0.5, 1.0]]), "b": torch.tensor([2.0])}
    version = content_version(tensors)
    small = {name: tensor.half() for name, tensor in reversed(tensors.items())}
    assert content_version(small) == version
    for other in (
        {"a": torch.tensor([[0.5, 1.5]]), "b": torch.tensor([2.0])},
        {"a": torch.tensor([0.5, 1.0]), "b": torch.tensor([2.0])},
        {"c": torch.tensor([[0.5, 1.0]]), "b": torch.tensor([2.0])},
    ):
        assert content_version(other) != version


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_small_type_travels_as_it_is_and_is_computed_with_in_float32(
    dtype: torch.dtype,
) -> None:
    base = made(0, dtype)
    assert {p.dtype for p in base.module.parameters()} == {torch.float32}
    sent = read(base.to_bytes())
    assert {tensor.dtype for tensor in sent.values()} == {dtype}
    torch.manual_seed(1)
    came = fill(nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7)), sent)
    assert came.version == base.version
    assert not came.module.training and not any(
        p.requires_grad for p in came.module.parameters()
    )


def test_pieces_add_up_in_order_and_nothing_else_does(store: Store) -> None:
    base = made(0)
    total = len(base.to_bytes())
    assert send(store, base, 1) == (0, "")  # after a gap
    assert send(store, base, 0) == (SIZE, "")
    assert send(store, base, 0) == (SIZE, "")  # once more
    assert kept_bytes(store, base.version) == SIZE
    assert send_all(store, base) == (total, "")
    assert kept_bytes(store, base.version) == total
    assert kept_bytes(store, made(1).version) == 0


def test_what_is_not_the_base_announced_goes(store: Store) -> None:
    base, other = made(0), made(1)
    sent = base.to_bytes()
    changed = sent[:-1] + bytes([sent[-1] ^ 1])
    for wrong in (other.to_bytes(), changed, b"no base" * 40):
        assert send_all(store, base, wrong) == (0, "the base arrived damaged")
        assert store.names("") == []
    assert send_all(store, base) == (len(base.to_bytes()), "")


def test_the_last_two_bases_are_kept(store: Store) -> None:
    made_of = [made(seed) for seed in range(4)]
    for base in made_of:
        send_all(store, base)
    whole = [kept_bytes(store, base.version) > 0 for base in made_of]
    assert whole == [False, False, True, True]


def test_a_piece_is_what_it_says() -> None:
    piece = BasePiece(base="0" * 16, start=SIZE, total=2 * SIZE + 7)

    def sent(piece: BasePiece, size: int) -> RecordDict:
        data = torch.arange(size, dtype=torch.uint8).numpy()
        return wire.encode_piece(piece, Array(data))

    found, data = wire.decode_piece(sent(piece, SIZE))
    assert found == piece and bytes(data) == bytes(range(SIZE))
    last = piece.model_copy(update={"start": 2 * SIZE})
    assert len(wire.decode_piece(sent(last, 7))[1]) == 7
    inside = piece.model_copy(update={"start": SIZE + 1})
    for wrong, size in ((piece, SIZE - 1), (last, 8), (inside, SIZE)):
        with pytest.raises(wire.WireError, match=f"a piece of {size} bytes at"):
            wire.decode_piece(sent(wrong, size))
    with pytest.raises(wire.WireError, match="carries no piece"):
        wire.decode_piece(RecordDict())
