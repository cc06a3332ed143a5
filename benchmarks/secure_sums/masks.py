"""Masks that cancel among the holders of a part (Bonawitz et al., CCS 2017).

The server learns of every part the sum over its holders, and nothing else of anybody,
as long as it keeps to the protocol and fewer than ``threshold`` members tell it all
they know. Their protocol has one vector from everybody; here each part has its own
holders. Everything is a whole number modulo 2**64, in the units of
``common.grid``, as the exact sums have them: masks cancel to the bit.

What member u sends of part p, with PRG keys worked out for this round and this part::

    y = x + PRG(b_{u,p}) + sum_{v > u} PRG(s_{u,v}) - sum_{v < u} PRG(s_{u,v})

over the other holders v of p. Of who has sent y, b is told by ``threshold`` members
that have shares of it; of who has not, the key that its s are made of. A part left with
fewer than ``least`` holders stays masked: nobody tells b of it.

Two differences to theirs. b is of one part, so that one part can stay masked while
others are summed. And there is no round in which members sign who is still there: a
server that tells different members different things breaks it, as one does that makes
up keys.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from Crypto.Protocol.SecretSharing import Shamir
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

Units = NDArray[np.int64]
Masked = NDArray[np.uint64]
_CHUNK = 16
"""Bytes of a secret that Shamir's polynomial is over; a key of X25519 has two."""


class UnsafeError(RuntimeError):
    """What is asked would tell more than a sum."""


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """What all members and the server agree on before a round.

    Attributes
    ----------
    name : str
        Of the run and the round: no key is used for two.
    holders : mapping of str to tuple of int
        Numbers of the members that are planned to hold each part.
    sizes : mapping of str to int
        Values of each part.
    threshold : int
        Members needed to take masks off, above half of them.
    least : int
        Holders of a part that a sum has to be of (``min-holders``), at least 2.
    """

    name: str
    holders: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, int]
    threshold: int
    least: int
    members: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        members = sorted({m for each in self.holders.values() for m in each})
        object.__setattr__(self, "members", tuple(members))
        if not len(members) / 2 < self.threshold <= len(members):
            raise ValueError(f"threshold {self.threshold} of {len(members)} members")
        if self.least < 2:
            raise ValueError(f"a sum of {self.least} is no sum")
        if few := [p for p, of in self.holders.items() if len(of) < self.least]:
            raise ValueError(f"{few[0]} has fewer than {self.least} holders")

    def parts_of(self, member: int) -> list[str]:
        """Return the parts a member holds."""
        return [part for part, of in self.holders.items() if member in of]


class Member:
    """One device in one round. Its steps are called in the order they are written in.

    Parameters
    ----------
    number : int
    sharing : Sharing
    random_bytes : callable
        Secret ones; anything but the operating system's is for tests.
    """

    def __init__(
        self,
        number: int,
        sharing: Sharing,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.number, self._sharing, self._random = number, sharing, random_bytes
        self._mask_key, self._box_key = (
            X25519PrivateKey.from_private_bytes(random_bytes(32)) for _ in range(2)
        )
        self._parts = sharing.parts_of(number)
        self._seeds = {part: random_bytes(_CHUNK) for part in self._parts}
        self._directory: Mapping[int, tuple[bytes, bytes]] = {}
        self._held: dict[int, list[bytes]] = {}  # shares of others' secrets
        self._told = False

    def keys(self) -> tuple[bytes, bytes]:
        """Return the public keys of its masks and of what is sent to it."""
        mask, box = self._mask_key.public_key(), self._box_key.public_key()
        return mask.public_bytes_raw(), box.public_bytes_raw()

    def shares(self, directory: Mapping[int, tuple[bytes, bytes]]) -> dict[int, bytes]:
        """Return for every other member a share of each secret, for its eyes alone.

        Parameters
        ----------
        directory : mapping of int to (bytes, bytes)
            The keys of all who are there, passed on by the server.
        """
        if len(directory) < self._sharing.threshold:
            raise UnsafeError(f"{len(directory)} members are too few")
        self._directory = directory
        secret = self._mask_key.private_bytes_raw()
        chunks = [secret[:_CHUNK], secret[_CHUNK:], *self._seeds.values()]
        everybody = self._sharing.members
        pieces: dict[int, list[bytes]] = {member: [] for member in everybody}
        for chunk in chunks:
            split = Shamir.split(
                self._sharing.threshold, len(everybody), chunk, ssss=False
            )
            for index, share in split:
                pieces[everybody[index - 1]].append(share)
        self._held[self.number] = pieces.pop(self.number)
        return {
            other: self._sealed(other, b"".join(pieces[other]))
            for other in directory
            if other != self.number
        }

    def masked(
        self, units: Mapping[str, Units], sealed: Mapping[int, bytes]
    ) -> dict[str, Masked]:
        """Return its vectors with masks on.

        Parameters
        ----------
        units : mapping of str to ndarray of int64
            Its contribution to every part it holds.
        sealed : mapping of int to bytes
            What others have sealed for it. Whoever is missing is gone.
        """
        for other, data in sealed.items():
            plain = self._opened(other, data)
            self._held[other] = [
                plain[start : start + _CHUNK] for start in range(0, len(plain), _CHUNK)
            ]
        found = {}
        for part in self._parts:
            holders = self._sharing.holders[part]
            if np.abs(units[part]).max(initial=0) >= 2**62 // len(holders):
                raise ValueError(f"{part} leaves the range of the sum")
            total = units[part].astype(np.uint64)
            total += pseudorandom(self._seeds[part], self._label(part), total.size)
            for other in holders:
                if other != self.number and other in self._held:
                    key = X25519PublicKey.from_public_bytes(self._directory[other][0])
                    add_mask(
                        total,
                        self._mask_key.exchange(key),
                        self._label(part),
                        positive=self.number < other,
                    )
            found[part] = total
        return found

    def unmask(
        self, survivors: frozenset[int]
    ) -> tuple[dict[tuple[int, str], bytes], dict[int, tuple[bytes, bytes]]]:
        """Return shares of seeds of who has answered, and of keys of who has not.

        Raises
        ------
        UnsafeError
            If too few are left, or it has told before: of nobody may be told both.
        """
        if self._told:
            raise UnsafeError("it has told once in this round")
        if len(survivors) < self._sharing.threshold or not survivors <= {*self._held}:
            raise UnsafeError(f"{len(survivors)} members are too few, or strangers")
        self._told = True
        seeds = {}
        for part, holders in self._sharing.holders.items():
            left = survivors.intersection(holders)
            if len(left) >= self._sharing.least:
                for member in left:
                    place = 2 + self._sharing.parts_of(member).index(part)
                    seeds[member, part] = self._held[member][place]
        gone = self._held.keys() - survivors
        return seeds, {m: (self._held[m][0], self._held[m][1]) for m in gone}

    def _label(self, part: str) -> bytes:
        return f"{self._sharing.name}/{part}".encode()

    def _box(self, other: int) -> AESGCM:
        key = X25519PublicKey.from_public_bytes(self._directory[other][1])
        return AESGCM(
            _derived(self._box_key.exchange(key), self._sharing.name.encode())
        )

    def _sealed(self, other: int, data: bytes) -> bytes:
        nonce = self._random(12)
        way = f"{self.number} to {other}".encode()
        return nonce + self._box(other).encrypt(nonce, data, way)

    def _opened(self, other: int, data: bytes) -> bytes:
        way = f"{other} to {self.number}".encode()
        return self._box(other).decrypt(data[:12], data[12:], way)


def unmasked(
    sharing: Sharing,
    directory: Mapping[int, tuple[bytes, bytes]],
    masked: Mapping[int, Mapping[str, Masked]],
    told: Mapping[
        int, tuple[dict[tuple[int, str], bytes], dict[int, tuple[bytes, bytes]]]
    ],
    shared: frozenset[int],
) -> dict[str, Units]:
    """Return the sums of all parts that enough holders have answered for.

    Parameters
    ----------
    masked : mapping of int to mapping of str to ndarray
        What has come, by member.
    told : mapping of int to tuple
        What :meth:`Member.unmask` of at least ``threshold`` members gave.
    shared : frozenset of int
        Members that had sealed shares, whom the others have masks with.
    """
    place = {member: n for n, member in enumerate(sharing.members, 1)}
    keys = {
        member: X25519PrivateKey.from_private_bytes(
            b"".join(
                _combined(sharing, place, {t: told[t][1][member][half] for t in told})
                for half in range(2)
            )
        )
        for member in shared - masked.keys()
    }
    sums = {}
    for part, holders in sharing.holders.items():
        left = [m for m in holders if m in masked]
        if len(left) < sharing.least:
            continue
        label, total = (
            f"{sharing.name}/{part}".encode(),
            np.zeros(sharing.sizes[part], np.uint64),
        )
        for member in left:
            total += masked[member][part]
            shares = {t: told[t][0][member, part] for t in told}
            seed = _combined(sharing, place, shares)
            total -= pseudorandom(seed, label, total.size)
            for gone in (m for m in holders if m in keys):
                public = X25519PublicKey.from_public_bytes(directory[member][0])
                secret = keys[gone].exchange(public)
                add_mask(total, secret, label, positive=gone < member)
        sums[part] = total.astype(np.int64)
    return sums


def add_mask(total: Masked, secret: bytes, label: bytes, *, positive: bool) -> None:
    """Add what two members share to a vector, or take it off."""
    mask = pseudorandom(secret, label, total.size)
    if positive:
        total += mask
    else:
        total -= mask


def pseudorandom(secret: bytes, label: bytes, size: int) -> Masked:
    """Return numbers modulo 2**64 that nobody can guess who lacks the secret."""
    stream = Cipher(AES(_derived(secret, label)), CTR(bytes(16))).encryptor()
    return np.frombuffer(stream.update(bytes(8 * size)), dtype="<u8")


def _derived(secret: bytes, label: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=label).derive(secret)


def _combined(
    sharing: Sharing, place: Mapping[int, int], shares: Mapping[int, bytes]
) -> bytes:
    some: Iterator[tuple[int, bytes]] = (
        (place[member], share) for member, share in shares.items()
    )
    secret: bytes = Shamir.combine([*some][: sharing.threshold], ssss=False)
    return secret
