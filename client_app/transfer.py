"""From a message to the vectors a client trains, and from deltas to its reply.

Encodings, the cache and error feedback meet here; each is in a module of its own.
"""

from collections.abc import Mapping

import numpy as np
from flwr.app import Array, Message, RecordDict

from client_app.clipping import clipped
from client_app.kept.cache import PartCache
from client_app.kept.residuals import Residuals
from client_app.kept.store import Store
from common import wire
from common.moe import Layout, ModelSpec, Vector
from common.wire import Packing, TrainOrder


class PartsLackedError(LookupError):
    """The client does not have what the order takes to be there.

    Attributes
    ----------
    parts : list of str
        What is missing.
    base_kept : int
        Where that is the base, bytes of it that are kept.
    """

    def __init__(self, parts: list[str], base_kept: int = 0) -> None:
        super().__init__(f"not here: {', '.join(parts)}")
        self.parts, self.base_kept = parts, base_kept

    def answer(self, message: Message, order: TrainOrder, client: str) -> Message:
        """Return the reply to an order, which asks for it."""
        missing = wire.MissingParts(
            server_round=order.server_round,
            client=client,
            parts=self.parts,
            base_kept=self.base_kept,
        )
        return Message(wire.encode_missing(missing), reply_to=message)


class Transfer:
    """What one client receives and sends in one round.

    Parameters
    ----------
    order : TrainOrder
    spec : ModelSpec
        Shape of the model the order asks for.
    store : Store
    cached : bool
        Whether the client keeps what it is sent.
    kept : int
        Rounds whose residuals are kept, at least 2.
    clip : float or None
        Largest norm of all that is sent together (``privacy-clip``).
    """

    def __init__(
        self,
        order: TrainOrder,
        spec: ModelSpec,
        store: Store,
        *,
        cached: bool,
        kept: int = 2,
        clip: float | None = None,
    ) -> None:
        self._kept, self._clip = kept, clip
        self._order = order
        self._store = store
        self._cache = PartCache(store) if cached else None
        self._parts = order.parts_of_all_models(spec.part_names())
        self._spec = spec

    def _layouts(self, names: Mapping[str, object]) -> dict[str, Layout]:
        return {name: self._spec.layout(name) for name in names if name in self._parts}

    def receive(self, content: RecordDict) -> dict[str, Vector]:
        """Return the parts of the model: those sent, and those ordered from the cache.

        Raises
        ------
        PartsLackedError
            If the cache does not hold what it should.
        WireError
            If an array is not what the order says or not finite, or a part is none of
            the model's.
        """
        order = self._order
        sent = wire.arrays_of(content)
        if strangers := sorted(sent.keys() - self._parts):
            raise wire.WireError(f"parts that are not of the model: {strangers}")
        recalled = self._cache.recall(order) if self._cache is not None else {}
        if lacking := [p for p in order.cached_parts if p not in recalled]:
            raise PartsLackedError(lacking)
        arrays = recalled | sent
        layouts = self._layouts(arrays)
        vectors = wire.unpack(
            arrays, Packing(dtype=order.download_dtype, layouts=layouts)
        )
        if broken := [p for p, v in vectors.items() if not np.isfinite(v).all()]:
            raise wire.WireError(f"{broken[0]} contains NaN or infinity")
        if self._cache is not None:
            self._cache.keep(order, sent)
        return vectors

    def holds(self) -> list[str]:
        """Return the versions kept, for the report."""
        return [] if self._cache is None else self._cache.versions()

    def send(
        self, deltas: Mapping[str, Vector], rng: np.random.Generator
    ) -> dict[str, Array]:
        """Return the packed deltas, encoded as the order asks.

        Parameters
        ----------
        rng : Generator
            Of the stochastic rounding.
        """
        order, clip = self._order, self._clip
        if order.upload_dtype == "float32":
            return wire.pack(deltas if clip is None else clipped(deltas, clip))
        return Residuals(self._store, kept=self._kept).pack(
            deltas,
            Packing(dtype=order.upload_dtype, layouts=self._layouts(deltas)),
            server_round=order.server_round,
            merged_round=order.merged_round,
            rng=rng,
            clip=clip,
        )
