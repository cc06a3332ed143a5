"""A client meets everything in its own domain: what it learns, holds out, is tested on.

That server and client mean the same domain is in ``tests/server_app/fleet``.
"""

import numpy as np
import pytest
import torch
from flwr.app import Context

from client_app.labels import log_frequencies
from client_app.session import Session
from common.data import Domain
from common.inline_grid import InlineGrid


def sessions(partition: str, clients: int = 4) -> list[Session]:
    config = {"partition": partition, "test-samples": 50}
    grid = InlineGrid(None, clients, config)  # type: ignore[arg-type]
    return [Session(context) for context in grid.contexts.values()]


def turned_by(domain: Domain) -> int:
    return int(domain.degrees) // 90


def tensor(x: object) -> torch.Tensor:
    assert isinstance(x, torch.Tensor)
    return x


@pytest.mark.parametrize("tensors", ["train", "held_out", "test"])
def test_images_are_turned_and_classes_renamed(tensors: str) -> None:
    plain, differing = (
        sessions(partition) for partition in ("iid", "rotation:4+concept:2+iid")
    )
    for before, after in zip(plain, differing, strict=True):
        x, y = getattr(before, f"{tensors}_tensors")()
        seen, called = getattr(after, f"{tensors}_tensors")()
        domain = after.data.domain
        expected = torch.rot90(tensor(x), turned_by(domain), (2, 3))
        assert torch.equal(tensor(seen), expected)
        names = torch.tensor(domain.labels or range(10))
        assert torch.equal(called, names[y])


def test_the_prior_is_of_the_classes_as_the_client_calls_them() -> None:
    for session in sessions("concept:4+classes:2"):
        called = session.data.y[session.data.train]
        expected = np.log((np.bincount(called, minlength=10) + 0.5) / (len(called) + 5))
        found = log_frequencies(session.data).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_device_with_all_of_a_set_has_it_as_it_is() -> None:
    context = Context(
        run_id=1,
        node_id=1,
        node_config={"name": "alone"},
        state=None,  # type: ignore[arg-type]
        run_config={"partition": "rotation:2+iid"},
    )
    assert Session(context).data.domain == Domain()
