"""How experts do on the server's own reserved samples, once a client changed them.

Fitness is otherwise what clients say: who claims that an expert is always right gets it
again and again. Here the server sees for itself. Its samples are not the client's: what
it learns is how good an update is, not how well an expert fits one client's data.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from common.cost import evaluation_batch
from common.errors import SettingsError
from common.moe import GATE, ModelSpec, Vector
from common.settings import Settings
from server_app.contract import Reply
from server_app.strategies.server_training import require_reserved, reserved_tensors

Found = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Accuracy and cross-entropy in nats of each expert held, both of shape (k,)."""


class ServerCheck:
    """Measures the experts of a reply, each alone.

    Parameters
    ----------
    settings : Settings
    spec : ModelSpec
    strategy : str
        Its name, for the error.

    Raises
    ------
    SettingsError
        If the server has no samples, or experts that recognise nothing alone.
    """

    def __init__(self, settings: Settings, spec: ModelSpec, strategy: str) -> None:
        why = "fitness-from = 'server' measures experts on them"
        require_reserved(settings, strategy, why)
        if spec.encoder is not None:
            raise SettingsError(
                "fitness-from = 'server' is not allowed with backbone "
                f"{settings.model.backbone!r}: its experts do not classify"
            )
        self._spec = spec
        self._x, self._y = reserved_tensors(settings)

    @torch.inference_mode()
    def __call__(self, model: Mapping[str, Vector], reply: Reply) -> Found:
        """Return how the experts of a reply do with the client's changes."""
        experts = reply.experts.tolist()
        changed = self._spec.build(experts)
        changed.load(
            {
                part: model[part] + reply.deltas.get(part, np.float32(0))
                for part in changed.parts()
                if part != GATE
            }
        )
        changed.to(self._y.device).eval()
        hits, losses = np.zeros(len(experts)), np.zeros(len(experts))
        size = evaluation_batch(self._spec)
        for x, y in zip(self._x.split(size), self._y.split(size), strict=True):
            seen = changed.moe.scale * changed.seen(x)
            for k, expert in enumerate(changed.moe.experts.values()):
                logits = expert(seen)
                hits[k] += int((logits.argmax(1) == y).sum())
                losses[k] += float(cross_entropy(logits, y, reduction="sum"))
        return hits / len(self._y), losses / len(self._y)
