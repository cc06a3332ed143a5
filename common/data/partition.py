"""Who has which samples: the notation and the checks of a partition.

The kinds themselves are in ``partition_kinds``; what clients may differ in beside their
samples is in ``domains``. A partition depends on the labels (and owners), the seed and
the number of clients alone, so that every process of a run works it out for itself and
none has to be told; its hash shows that all came to the same one.
"""

import hashlib
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from common.data.dataset import Labels
from common.data.domains import MOST, Factor, parse_factor
from common.data.partition_kinds import Request, find_kind
from common.data.splits import Indices
from common.errors import nearest
from common.registry import PARTITIONS
from common.seeding import stream

MIN_SIZE = 10

FOLDERS = "folders"
"""A simulation whose clients have a folder each: nothing is cut (``common.own``)."""


@dataclass(frozen=True, kw_only=True)
class PartitionSpec:
    """A name of ``common.registry.PARTITIONS``, and what follows the colon.

    ``str(spec)`` parses to the same.

    Attributes
    ----------
    kind : str
    argument : float, int or None
    factors : tuple of Factor
        What clients differ in beside their samples, in the order of ``domains.MOST``.
    """

    kind: str
    argument: float | int | None = None
    factors: tuple[Factor, ...] = ()

    def __str__(self) -> str:
        label = self.kind if self.argument is None else f"{self.kind}:{self.argument}"
        return "+".join([*map(str, self.factors), label])


def parse_partition(text: str) -> PartitionSpec:
    """Parse ``iid``, ``dirichlet:ALPHA``, ``classes:N``, ``natural`` or one's own.

    A user's is ``module:attr`` or ``module:attr:NUMBER``. What devices differ in is
    joined to it by ``+``, as in ``rotation:4+dirichlet:0.3``; alone it goes with iid.

    Raises
    ------
    ValueError
        Naming the value, what is allowed and the nearest valid name.
    """
    factors: dict[str, Factor] = {}
    rest = []
    for piece in re.split(r"\+(?=\s*[^\W\d])", text):  # and not within 1e+3
        if (factor := parse_factor(piece)) is None:
            rest.append(piece.strip())
        elif factor.kind in factors:
            raise ValueError(f"partition {text!r}: {factor.kind} is there twice")
        else:
            factors[factor.kind] = factor
    if factors and FOLDERS in rest:
        raise ValueError(
            f"partition {text!r}: devices with folders of their own differ as they do: "
            f"expected {FOLDERS!r} alone"
        )
    labels = [_parse_label(each) for each in rest or ["iid"]]
    if len(labels) > 1:
        raise ValueError(
            f"partition {text!r}: expected one label partition, not {len(labels)}"
        )
    ordered = tuple(factors[kind] for kind in MOST if kind in factors)
    return replace(labels[0], factors=ordered)


def _parse_label(text: str) -> PartitionSpec:
    name, colon, argument = text.partition(":")
    if not PARTITIONS.has(name):
        attribute, colon, number = argument.partition(":")
        if not PARTITIONS.has(target := f"{name}:{attribute}"):
            usages = [find_kind(each).usage for each in PARTITIONS.built_in]
            valid = [*PARTITIONS.names(), FOLDERS, *MOST]
            hint = nearest(name, valid, _correction(argument))
            choice = (
                f"choose from {', '.join(usages)}, {FOLDERS} or {PARTITIONS.notation}, "
                f"with + also {', '.join(f'{kind}:G' for kind in MOST)}{hint}"
            )
            raise ValueError(f"unknown partition {text!r}, {choice}")
        name, argument = target, number
    kind = find_kind(name)
    if kind.parse is None:
        if colon:
            raise ValueError(
                f"partition {text!r}: {name} takes no argument; did you mean {name!r}?"
            )
        return PartitionSpec(kind=name)
    try:
        return PartitionSpec(kind=name, argument=kind.parse(argument))
    except ValueError:
        raise ValueError(
            f"partition {text!r}: expected {kind.usage}, for example {kind.example!r}"
        ) from None


def _correction(argument: str) -> Callable[[str], str]:
    """Return what to suggest for a kind: with the argument given, if it will do."""

    def corrected(name: str) -> str:
        if name == FOLDERS:
            return name
        if name in MOST:
            with suppress(ValueError):
                return str(parse_factor(f"{name}:{argument}"))
            return f"{name}:2"
        kind = find_kind(name)
        try:
            return f"{name}:{argument}" if kind.parse and kind.parse(argument) else name
        except ValueError:
            return kind.example

    return corrected


def partition(
    labels: Labels,
    spec: PartitionSpec,
    num_clients: int,
    seed: int,
    *,
    min_size: int | None = None,
    owners: Labels | None = None,
) -> tuple[Indices, ...]:
    """Give every client its samples.

    Every sample goes to exactly one client, except that ``classes:N`` leaves out
    the classes that are nobody's when C*N < K. Clients below the minimum are topped up
    from the largest ones, with classes they have where possible. (Drawing anew until
    every client is large enough, as is common, may never end for a small alpha.) The
    clients of ``natural`` are given nothing that is another's: one with fewer than two
    samples is an error.

    Parameters
    ----------
    labels : ndarray of int, shape (N,)
    num_clients : int
        Number of clients C.
    seed : int
        Of the run.
    min_size : int, optional
        Samples every client has at least. The default is half an equal share, but at
        most 10 and at least 2: one to train on, one to hold out.
    owners : ndarray of int, shape (N,), optional
        Whose each sample is; ``natural`` needs it.

    Returns
    -------
    tuple of C ndarrays of int64
        Ascending positions in ``labels``, pairwise disjoint.

    Raises
    ------
    ValueError
        If there are too few samples for so many clients, or the argument does not
        fit the labels.
    """
    if num_clients < 1:
        raise ValueError(f"a partition over {num_clients} clients: expected 1 or more")
    request = Request(
        labels=labels,
        num_clients=num_clients,
        argument=float(spec.argument or 0),
        rng=stream(seed, "data", "partition"),
        owners=owners,
    )
    kind, name = find_kind(spec.kind), f"partition {str(spec)!r}"
    parts = [np.asarray(part) for part in kind.split(request)]
    if len(parts) != num_clients or not all(
        part.ndim == 1 and np.issubdtype(part.dtype, np.integer) for part in parts
    ):
        raise ValueError(
            f"{name} returned {len(parts)} parts: expected {num_clients} arrays of row "
            "numbers"
        )
    covered = np.concatenate(parts)
    if covered.size and not 0 <= covered.min() <= covered.max() < len(labels):
        raise ValueError(f"{name} gives rows that there are not")
    if len(np.unique(covered)) != len(covered):
        raise ValueError(f"{name} gives samples to several clients")
    if min_size is None:
        min_size = max(2, min(MIN_SIZE, len(covered) // (2 * num_clients)))
    if num_clients * min_size > len(covered):
        raise ValueError(
            f"{len(covered)} samples are too few for {num_clients} clients: {name} "
            f"needs at least {min_size} for each"
        )
    if kind.tops_up:
        parts = _top_up(parts, labels, min_size)
    elif few := sum(len(part) < 2 for part in parts):
        raise ValueError(
            f"{name} gives {few} of {num_clients} clients fewer than 2 samples, one to "
            "train on and one to hold out: expected fewer clients, or larger groups"
        )
    return tuple(np.sort(part) for part in parts)


def _top_up(parts: list[Indices], labels: Labels, min_size: int) -> list[Indices]:
    """Move samples, one at a time, until every client has ``min_size``.

    Each step takes one sample from the largest client that can give one of a class the
    smallest client has, and keeps one of that class; without such a client, from the
    largest. Ends after as many steps as samples are missing: while one client has too
    few another has more than enough.
    """
    sizes = np.array([len(part) for part in parts])
    _, codes = np.unique(labels, return_inverse=True)
    classes = codes.max() + 1
    counts = np.stack([np.bincount(codes[part], minlength=classes) for part in parts])
    rows = [part.tolist() for part in parts]
    while sizes.min() < min_size:
        taker = int(sizes.argmin())
        can_give = (sizes > min_size)[:, np.newaxis]
        spare = np.where(can_give & (counts[taker] > 0), counts - 1, 0)
        if not (spare > 0).any():
            spare = np.where(can_give, counts, 0)
        giver = int(np.where((spare > 0).any(axis=1), sizes, -1).argmax())
        k = int(spare[giver].argmax())
        position = next(i for i, row in enumerate(rows[giver]) if codes[row] == k)
        rows[taker].append(rows[giver].pop(position))
        for client, change in ((giver, -1), (taker, 1)):
            sizes[client] += change
            counts[client, k] += change
    return [np.array(mine, dtype=np.int64) for mine in rows]


def partition_hash(parts: tuple[Indices, ...]) -> str:
    """Return the SHA-256 of a partition as 64 hexadecimal digits.

    The order of clients counts, the order of samples within a client does not; equal
    on every platform.
    """
    digest = hashlib.sha256(b"expertfleet partition 1\0")
    digest.update(np.array([len(part) for part in parts], dtype="<i8").tobytes())
    for part in parts:
        digest.update(np.sort(part).astype("<i8").tobytes())
    return digest.hexdigest()
