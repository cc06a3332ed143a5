"""What frozen layers make of samples: computed once, then read.

Of a network of images that is frozen as a whole, its features; of an encoder around a
frozen checkpoint, what comes out of the blocks before its first mixture, beside the
token ids. Either is kept in float16, and taken by the model in place of its samples.

The table is that of these weights, this preprocessing and these data; see
``common.feature_table`` for where and how. Without a place for it, features are
computed once a message.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.data import ClientData, Dataset, fingerprint
from common.feature_table import FeatureTable, not_kept
from common.moe import EncoderSpec, ModelSpec
from common.moe.bases import installed
from common.moe.image_network import AT_A_TIME, NetworkSpec, frozen_features, measured
from common.moe.pretrained import blocks_before_mixtures, hidden_before_mixtures

MOST_IDS = 2**16
"""Token ids are kept in two bytes each."""


def identity_of_train(dataset: Dataset) -> str:
    """Return what is in ``x_train`` of a shared data set."""
    return f"train {fingerprint(dataset).train}"


def identity_of_test(dataset: Dataset) -> str:
    """Return what is in its ``x_test``."""
    return f"test {fingerprint(dataset).test}"


@dataclass(frozen=True, kw_only=True)
class FeatureData:
    """What :class:`client_app.model_inputs.ModelInputs` asks of data, for features."""

    input_shape: tuple[int, ...]
    with_ids: bool
    kind: str = "float32"

    def normalise(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Return kept rows as the model takes them."""
        values = stored.astype(np.float32)
        if self.with_ids:  # bits of the last column are a number, not a float
            last = np.ascontiguousarray(stored[..., -1])
            values[..., -1] = last.view(np.uint16)
        return values


@dataclass(frozen=True, kw_only=True)
class Features:
    """The frozen layers of a model, and where their answers are kept.

    Attributes
    ----------
    inside : NetworkSpec or EncoderSpec
        Its ``base`` is in this process.
    length : int
        Tokens of a text; not used for images.
    folder : Path or None
        Of the tables; None keeps nothing beyond a message.
    limit : int
        Their bytes.
    """

    inside: NetworkSpec | EncoderSpec
    length: int
    folder: Path | None
    limit: int

    @classmethod
    def of(cls, spec: ModelSpec, folder: Path | None, limit: int) -> "Features | None":
        """Return those of a model; None if it has none, or the limit is 0."""
        inside = spec.built_around
        if not limit or inside is None:
            return None
        if isinstance(inside, NetworkSpec) and not inside.all_frozen:
            return None
        if isinstance(inside, EncoderSpec) and inside.vocabulary > MOST_IDS:
            not_kept(f"the vocabulary of {inside.vocabulary} ids is above {MOST_IDS}")
            return None
        if isinstance(inside, EncoderSpec) and not blocks_before_mixtures(inside):
            return None
        length = spec.input_shape[0]
        return cls(inside=inside, length=length, folder=folder, limit=limit)

    @property
    def data(self) -> FeatureData:
        """How kept rows become inputs."""
        if isinstance(self.inside, NetworkSpec):
            seen = measured(self.inside.name, self.inside.size)
            return FeatureData(input_shape=(seen.out_features,), with_ids=False)
        shape = (self.length, self.inside.width + 1)
        return FeatureData(input_shape=shape, with_ids=True)

    def rows_of(
        self, data: ClientData, x: NDArray[Any], rows: NDArray[np.int64], identity: str
    ) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
        """Return kept features, and which of them are the rows asked for.

        Parameters
        ----------
        data : ClientData
            Which says how samples are normalised.
        x : ndarray, shape (N, *stored)
        rows : ndarray of int64
        identity : str
            Of what is in ``x``, row by row.
        """
        shape = self.data.input_shape

        def compute(some: NDArray[np.int64]) -> NDArray[np.float16]:
            return self.computed(data, x[some])

        if self.folder is not None:
            key = self._key(data, identity)
            try:
                with FeatureTable(self.folder, key, len(x), shape, self.limit) as table:
                    table.fill(rows, compute)
                    return table.values(), rows
            except OSError as error:  # no room: it costs time, not the reply
                not_kept(error)
        step = 8 * AT_A_TIME
        some = [compute(rows[i : i + step]) for i in range(0, len(rows), step)]
        none = np.empty((0, *shape), dtype=np.float16)
        return np.concatenate([none, *some]), np.arange(len(rows))

    def computed(self, data: ClientData, stored: NDArray[Any]) -> NDArray[np.float16]:
        """Return the features of samples as stored, (B, *stored).

        Always of as many at a time: the last bit of a sum may depend on it.
        """
        count = len(stored)
        fill = -count % AT_A_TIME
        inputs = data.normalise(np.concatenate([stored, stored[:1].repeat(fill, 0)]))
        pieces = torch.from_numpy(inputs).split(AT_A_TIME)
        found = np.concatenate([self._piece(piece) for piece in pieces])
        return found[:count]

    @torch.no_grad()
    def _piece(self, x: torch.Tensor) -> NDArray[np.float16]:
        # Wherever a model of this process has used it last.
        there = x.to(next(installed(self.inside.base).parameters()).device)
        if isinstance(self.inside, NetworkSpec):
            found = frozen_features(self.inside, there)
            return found.cpu().numpy().astype(np.float16)
        hidden = hidden_before_mixtures(self.inside, there).cpu().numpy()
        hidden = hidden.astype(np.float16)
        ids = x.numpy().astype(np.uint16).view(np.float16)[..., None]
        return np.concatenate([hidden, ids], axis=-1)

    def _key(self, data: ClientData, identity: str) -> str:
        first = 0
        if isinstance(self.inside, EncoderSpec):
            first = blocks_before_mixtures(self.inside)
        seen = (
            getattr(self.inside, "size", ()),
            *(getattr(self.inside, name, "") for name in ("interpolation", "channels")),
        )
        parts = (self.inside.base, self.inside.config, first, seen, self.length)
        of_data = (data.normaliser, data.domain, data.input_shape, identity)
        return hashlib.sha256(repr((parts, of_data)).encode()).hexdigest()[:32]
