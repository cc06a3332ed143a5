"""Devices that differ: what each of them sees, and what it calls it.

``rotation:4+dirichlet:0.3`` is a label partition whose clients are in four groups with
cameras turned by 0, 90, 180 and 270 degrees. A *domain* is what the samples of a client
go through on their way to its model: the same for training, for what it holds out, and
for the global test set as it is measured on it. Samples are turned when they are asked
for, a batch at a time where they are many; nobody keeps a set once for every domain.

Which client is in which domain depends on the partition, the seed and the number of
clients alone. The server therefore knows it as well, and is told nothing.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.data.appearance import PHOTOMETRIC, developed, turned
from common.data.dataset import Dataset, Kind, Labels, Normaliser, Samples, model_input
from common.data.splits import Indices, largest_remainder
from common.errors import SettingsError
from common.seeding import stream

MOST = {"rotation": 360, "photometric": len(PHOTOMETRIC), "concept": 10_000}
"""What devices may differ in, and into how many groups at most."""

MOST_SHARE = 10**6


@dataclass(frozen=True, kw_only=True)
class Factor:
    """One thing in which devices differ: its name, and the shares of its groups.

    ``str(factor)`` parses to the same.

    Attributes
    ----------
    kind : str
        One of ``MOST``.
    shares : tuple of int
        Of the clients, one for each group.
    """

    kind: str
    shares: tuple[int, ...]

    def __str__(self) -> str:
        equal = set(self.shares) == {1}
        shares = (str(share) for share in self.shares)
        return f"{self.kind}:{len(self.shares) if equal else '/'.join(shares)}"


def parse_factor(text: str) -> Factor | None:
    """Parse ``rotation:4`` or ``rotation:11/6/2/1``; None for something else.

    Raises
    ------
    ValueError
        If it begins as one and is none.
    """
    kind, _, argument = text.strip().partition(":")
    if kind not in MOST:
        return None
    parts = argument.split("/")
    numbers = [int(each) for each in parts if each.isascii() and each.isdigit()]
    if len(numbers) == len(parts) and 1 <= min(numbers) <= max(numbers) <= MOST_SHARE:
        # Equal shares are a number of groups, and one number is that too.
        count = numbers[0] if len(numbers) == 1 else len(numbers)
        equal = len(set(numbers)) == 1
        if 2 <= count <= MOST[kind]:
            return Factor(kind=kind, shares=(1,) * count if equal else tuple(numbers))
    raise ValueError(
        f"partition {text!r}: expected {kind}:G with 2 to {MOST[kind]} groups G, or "
        f"the shares of the groups, {kind}:18/2"
    )


@dataclass(frozen=True, kw_only=True)
class Domain:
    """What the samples of a client go through on their way to its model.

    Attributes
    ----------
    degrees : float
        By which images are turned, anticlockwise.
    look : str
        One of ``PHOTOMETRIC``.
    concept : int
        Which group of labels; 0 keeps them.
    labels : tuple of int
        What class k is called here, at place k; empty where every class is k.
    """

    degrees: float = 0.0
    look: str = PHOTOMETRIC[0]
    concept: int = 0
    labels: tuple[int, ...] = ()

    def __str__(self) -> str:
        said = [f"{self.degrees:g} degrees"] if self.degrees else []
        said += [self.look] if self.look != PHOTOMETRIC[0] else []
        said += [f"labels {self.concept}"] if self.concept else []
        return ", ".join(said) or PHOTOMETRIC[0]

    def relabelled(self, y: Labels) -> Labels:
        """Return what a client calls samples of these classes."""
        return np.array(self.labels, dtype=np.int64)[y] if self.labels else y

    def model_input(
        self,
        x: Samples,
        input_shape: tuple[int, ...],
        normaliser: Normaliser,
        kind: Kind,
    ) -> NDArray[Any]:
        """Return stored samples as a client's model takes them; see ``model_input``."""
        if not self.degrees and self.look == PHOTOMETRIC[0]:
            return model_input(x, input_shape, normaliser, kind)
        bright = Normaliser(scale=normaliser.scale).apply(x, input_shape)
        seen = developed(turned(bright, self.degrees), self.look)
        return Normaliser(mean=normaliser.mean, std=normaliser.std).apply(
            seen, input_shape
        )


PLAIN = Domain()
"""Samples as they are."""


@lru_cache(maxsize=8)  # each of a thousand clients asks where it is
def client_domains(
    factors: tuple[Factor, ...], num_classes: int, num_clients: int, seed: int
) -> tuple[Domain, ...]:
    """Return the domain of every client.

    Sizes of groups follow the shares. Which clients are in a group is drawn by the
    seed; where devices differ in several things, these are crossed evenly: the groups
    of the second are spread over each group of the first.

    Parameters
    ----------
    num_classes : int
        K; a concept is a permutation of them. No two concepts are the same.

    Raises
    ------
    ValueError
        If there are fewer clients than groups.
    """
    groups: dict[str, Indices] = {}
    before = np.zeros(num_clients, dtype=np.int64)
    for factor in factors:
        rng = stream(seed, "data", "domains", factor.kind)
        dealt = groups[factor.kind] = _deal(factor, before, rng)
        before = before * len(factor.shares) + dealt
    concepts = _permutations(groups.get("concept"), num_classes, seed)
    none = np.zeros(num_clients, dtype=np.int64)
    turns, looks, calls = (groups.get(kind, none) for kind in MOST)
    step = 360 / next((len(f.shares) for f in factors if f.kind == "rotation"), 1)
    return tuple(
        Domain(
            degrees=turn * step,
            look=PHOTOMETRIC[look],
            concept=call,
            labels=concepts[call],
        )
        for turn, look, call in zip(
            turns.tolist(), looks.tolist(), calls.tolist(), strict=True
        )
    )


def _deal(factor: Factor, before: Indices, rng: np.random.Generator) -> Indices:
    """Return the group of every client; ``before`` is the group it is in already."""
    clients, shares = len(before), np.array(factor.shares)
    sizes = largest_remainder(shares * (clients / shares.sum()), clients)
    if not sizes.all():
        raise ValueError(
            f"partition {str(factor)!r}: {clients} clients leave a group without any: "
            "expected more clients, or fewer groups"
        )
    # Any stretch of these has the groups by their shares, hence each earlier group has.
    places = np.concatenate([(np.arange(n) + 0.5) / n for n in sizes])
    spread = np.repeat(np.arange(len(sizes)), sizes)[np.argsort(places, kind="stable")]
    order = rng.permutation(clients)
    order = order[np.argsort(before[order], kind="stable")]
    groups = np.empty(clients, dtype=np.int64)
    groups[order] = spread
    return groups


def _permutations(
    groups: Indices | None, num_classes: int, seed: int
) -> list[tuple[int, ...]]:
    """Return what each group calls the classes; the first by their own numbers."""
    found: list[tuple[int, ...]] = [()]
    taken = {tuple(range(num_classes))}
    rng = stream(seed, "data", "domains", "labels")
    while len(taken) <= (0 if groups is None else int(groups.max())):
        drawn = tuple(rng.permutation(num_classes).tolist())
        if drawn not in taken:
            taken.add(drawn)
            found.append(drawn)
    return found


@lru_cache(maxsize=8)
def check_factors(dataset: Dataset, factors: tuple[Factor, ...]) -> None:
    """Raise SettingsError if samples cannot differ in this way."""
    for factor in factors:
        where = f"partition = {str(factor)!r} is not allowed with this data set"
        if factor.kind == "concept":
            classes = dataset.num_classes
            # 8! is more groups than there may be.
            if len(factor.shares) > math.factorial(min(classes, 8)):
                raise SettingsError(
                    f"{where}: {classes} classes have {math.factorial(classes)} "
                    "permutations: expected no more groups"
                )
            continue
        if len(dataset.input_shape) != 3:
            raise SettingsError(
                f"{where}: {factor.kind} is for images, and its samples have the shape "
                f"{dataset.input_shape}: choose concept:{len(factor.shares)}, or a "
                "label partition alone"
            )
        full = dataset.normaliser.scale
        least, most = (f(dataset.x_train, initial=0) for f in (np.min, np.max))
        if factor.kind == "photometric" and not 0 <= least <= most <= full:
            raise SettingsError(
                f"{where}: photometric needs brightness from 0 to {full:g}, and it "
                f"has {least:g} to {most:g}: store bytes, or floats from 0 to 1"
            )
