"""The kinds of partition: iid, Dirichlet label skew, N classes per client, natural.

Each is a function from a :class:`Request` to one index array per client, and so is a
user's own. Its seed, the minimum size and the checks are the business of ``partition``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from common.data.dataset import Labels
from common.data.splits import Indices, largest_remainder
from common.registry import PARTITIONS

# Above this the shares differ by less than one sample in a hundred million; NumPy's
# sampler overflows near 1e308.
MAX_ALPHA = 1e16


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a kind of partition is given.

    Attributes
    ----------
    labels : ndarray of int64, shape (N,)
    num_clients : int
        Number of clients C.
    argument : float
        What ``Kind.parse`` returned; 0 for a kind without argument.
    rng : numpy.random.Generator
        The only source of randomness.
    owners : ndarray of int64, shape (N,), or None
        Whose each sample is, if that is known.
    """

    labels: Labels
    num_clients: int
    argument: float
    rng: np.random.Generator
    owners: Labels | None = None


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of partition.

    Attributes
    ----------
    usage, example : str
        For messages: what is allowed, and one value that is.
    split : Callable[[Request], list of ndarray]
        The algorithm: C disjoint index arrays of any size, each class's indices in
        random order.
    parse : Callable[[str], float or int] or None
        Reads what follows the colon, with ValueError for what is not allowed; None
        for a kind without argument.
    tops_up : bool
        Whether a client with too few samples is given others'; else it is an error.
    """

    usage: str
    example: str
    split: Callable[[Request], list[Indices]]
    parse: Callable[[str], float | int] | None = None
    tops_up: bool = True


def iid(request: Request) -> list[Indices]:
    """Deal shuffled samples; sizes differ by at most one."""
    shuffled = request.rng.permutation(len(request.labels))
    return np.array_split(shuffled, request.num_clients)


def dirichlet(request: Request) -> list[Indices]:
    """Cut every class by its own Dirichlet draw over the clients.

    For class k, p_k ~ Dir(alpha 1_C); client c gets the share p_kc of its samples
    (Yurochkin et al., ICML 2019, section 4; Hsu et al., arXiv 1909.06335). A large
    alpha comes near iid, a small one gives each class to few clients.
    """
    clients, rng = request.num_clients, request.rng
    alpha = min(request.argument, MAX_ALPHA)
    parts: list[list[Indices]] = [[] for _ in range(clients)]
    for k in np.unique(request.labels):
        rows = rng.permutation(np.flatnonzero(request.labels == k))
        shares = rng.dirichlet(np.full(clients, alpha))
        # Rounded, so that a last-bit difference between processors moves no cut.
        cuts = np.rint(np.round(np.cumsum(shares)[:-1], 9) * len(rows)).astype(int)
        for part, piece in zip(parts, np.split(rows, cuts), strict=True):
            part.append(piece)
    return [np.concatenate(part) for part in parts]


def classes(request: Request) -> list[Indices]:
    """Give every client N classes and every class about C*N/K clients.

    Numbers of clients per class differ by at most one; the samples of a class are
    dealt evenly among its clients. With C*N < K some classes (chosen by the seed) are
    nobody's and their samples are left out. A client has fewer than N classes only
    where a class has fewer samples than clients that were to share it.
    """
    labels, clients, rng = request.labels, request.num_clients, request.rng
    present = np.unique(labels)
    count = int(request.argument)
    if count > len(present):
        raise ValueError(
            f"partition 'classes:{count}': expected 1 to {len(present)}, the number of "
            "classes in the data"
        )
    allotted = _allot(clients, count, len(present), rng)
    parts: list[list[Indices]] = [[] for _ in range(clients)]
    for k, label in enumerate(present):
        holders = rng.permutation(np.flatnonzero([k in mine for mine in allotted]))
        if len(holders):
            rows = rng.permutation(np.flatnonzero(labels == label))
            pieces = np.array_split(rows, len(holders))
            for c, piece in zip(holders, pieces, strict=True):
                parts[c].append(piece)
    return [np.concatenate(part) for part in parts]


def _allot(
    clients: int, count: int, num_classes: int, rng: np.random.Generator
) -> list[set[int]]:
    """Deal ``count`` distinct classes to every client from shuffled decks.

    A deck holds every class once, and the next is opened when it is used up: that
    keeps the classes balanced. A client that a deck ends in the middle of gets the
    rest from the new deck without what it holds already.
    """
    hands: list[set[int]] = [set() for _ in range(clients)]
    deck: list[int] = []
    for c in rng.permutation(clients):
        for _ in range(count):
            if not deck:
                deck = rng.permutation(num_classes).tolist()
            fresh = next(k for k in deck if k not in hands[c])
            deck.remove(fresh)
            hands[c].add(fresh)
    return hands


def natural(request: Request) -> list[Indices]:
    """Make the owners of the samples the clients.

    With as many clients as owners, client c is owner c. With more clients, every owner
    stands for a number of them in proportion to its samples (at least one), and these
    share its samples evenly, by chance. With fewer clients, owners stay whole: the
    largest go first, each to the client with the fewest samples so far.
    """
    if request.owners is None:
        raise ValueError(NO_OWNERS)
    rng, clients = request.rng, request.num_clients
    owned = [
        rng.permutation(np.flatnonzero(request.owners == owner))
        for owner in np.unique(request.owners)
    ]
    sizes = np.array([len(rows) for rows in owned])
    if clients >= len(owned):
        spare = clients - len(owned)
        shares = 1 + largest_remainder(spare * sizes / sizes.sum(), spare)
        pairs = zip(owned, shares, strict=True)
        return [part for rows, n in pairs for part in np.array_split(rows, n)]
    parts: list[list[Indices]] = [[] for _ in range(clients)]
    load = np.zeros(clients, dtype=np.int64)
    for owner in np.argsort(-sizes, kind="stable"):
        client = int(load.argmin())
        parts[client].append(owned[owner])
        load[client] += sizes[owner]
    return [np.concatenate(part) for part in parts]


def _positive(text: str) -> float:
    if not 0 < float(text) < math.inf:
        raise ValueError(text)
    return float(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise ValueError(text)
    return int(text)


NO_OWNERS = (
    "partition 'natural' needs to know whose each sample is: expected a field 'group' "
    "in every line of a .jsonl file, or an array 'owner_train' in an .npz file"
)

IID = Kind(usage="iid", example="iid", split=iid)
DIRICHLET = Kind(
    usage="dirichlet:ALPHA with ALPHA a number above 0",
    example="dirichlet:0.3",
    split=dirichlet,
    parse=_positive,
)
CLASSES = Kind(
    usage="classes:N with N an integer from 1 to the number of classes",
    example="classes:2",
    split=classes,
    parse=_count,
)
NATURAL = Kind(usage="natural", example="natural", split=natural, tops_up=False)


def find_kind(name: str) -> Kind:
    """Return the kind of partition with this name (of ``PARTITIONS``).

    A function of a user's own becomes one whose argument is a number, 0 if left out.

    Raises
    ------
    SettingsError
        If there is none.
    """
    found = PARTITIONS.find(name)
    if isinstance(found, Kind):
        return found
    return Kind(
        usage=f"{name} or {name}:NUMBER",
        example=name,
        split=found,
        parse=lambda text: float(text or 0),
    )
