"""Models, sources, certificates, clients and calls for the tests of the service."""

import asyncio
import datetime
import ipaddress
import threading
from collections.abc import AsyncIterator, Coroutine, Hashable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from numpy.typing import NDArray
from torch import nn

from common.errors import SourceError
from common.moe import ModelSpec
from common.moe.ensemble import GatedMixture
from common.serving import inference_pb2 as pb
from common.serving.inference_pb2_grpc import InferenceStub
from common.serving.servable import Servable
from common.serving.server import ServeOptions, Server
from common.serving.tensors import encode
from common.task import Fixed, ImageTask

SPEC = ModelSpec(
    backbone="mlp",
    input_shape=(1, 8, 8),
    num_classes=10,
    num_experts=4,
    expert_hidden=16,
    top_k=1,
)
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TASK = ImageTask(
    classes=NAMES,
    size=(8, 8),
    channels=1,
    bright=16.0,
    scale=Fixed(mean=(0.0,), std=(1.0,)),
)


def make_servable(
    server_round: int = 1, predictor: nn.Module | None = None
) -> Servable:
    """A digits model that differs from round to round."""
    held = (0, 2, 3)
    return Servable(
        predictor=predictor or GatedMixture(SPEC.build(held, seed=server_round)),
        task=TASK,
        run="a-run",
        server_round=server_round,
        experts=held,
    )


def images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Digits-like samples as stored."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 17, (count, 8, 8)).astype(np.uint8)


@torch.inference_mode()
def by_torch(servable: Servable, x: NDArray[Any]) -> NDArray[np.float32]:
    """What the model itself says, without any of the serving code."""
    prepared = torch.from_numpy(x.astype(np.float32) / 16).reshape(-1, 1, 8, 8)
    probabilities: NDArray[np.float32] = servable.predictor(prepared).numpy()
    return probabilities


class Held(nn.Module):
    """Waits for permission before it answers, and counts what it computed."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = make_servable().predictor
        self.go, self.entered = threading.Event(), threading.Event()
        self.go.set()
        self.samples = 0

    def hold(self) -> None:
        """Give no permission from here on."""
        self.go.clear()
        self.entered.clear()

    async def reached(self) -> None:
        """Wait until something is being computed."""
        assert await asyncio.to_thread(self.entered.wait, 100)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.entered.set()
        assert self.go.wait(100)
        self.samples += len(x)
        probabilities: torch.Tensor = self.inner(x)
        return probabilities


class Shelf:
    """A source whose newest model is put there by the test."""

    def __init__(self, servable: Servable | SourceError) -> None:
        self.newest: Servable | SourceError = servable

    def version(self) -> Hashable:
        return id(self.newest)

    def load(self) -> Servable:
        if isinstance(self.newest, SourceError):
            raise self.newest
        return self.newest


def options(**changes: Any) -> ServeOptions:
    return ServeOptions(**{"memory": 100_000_000, "poll": 0.02, "grace": 5, **changes})


@asynccontextmanager
async def serving(source: Shelf, **changes: Any) -> AsyncIterator[Server]:
    server = Server(source, options(**changes))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def connection(server: Server) -> grpc.aio.Channel:
    """Return a channel that shares its connection with no other one."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(server.address, options)


@asynccontextmanager
async def calling(server: Server) -> AsyncIterator[InferenceStub]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield InferenceStub(channel)


def request(x: NDArray[Any]) -> pb.PredictRequest:
    return pb.PredictRequest(x=encode(x))


class Authority:
    """A certificate authority that lives as long as a test."""

    def __init__(self, folder: Path, name: str = "test CA") -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        ca = x509.BasicConstraints(ca=True, path_length=0)
        self.path = folder / "ca.crt"
        self.path.write_bytes(self._sign(self._name, self._key, ca))

    def issue(self, name: str, hours: float = 24) -> tuple[Path, Path]:
        """Write certificate and key of ``name``, good for the loopback and so long."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        loopback = x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))
        hosts = x509.SubjectAlternativeName([x509.DNSName(name), loopback])
        certificate = self._folder / f"{name}.crt"
        certificate.write_bytes(self._sign(subject, key, hosts, hours))
        private = self._folder / f"{name}.key"
        private.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        return certificate, private

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        extension: x509.ExtensionType,
        hours: float = 24,
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + datetime.timedelta(hours=hours))
            .add_extension(extension, critical=False)
            .sign(self._key, hashes.SHA256())
            .public_bytes(Encoding.PEM)
        )


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test of the service to its end, or fail after five minutes."""
    asyncio.run(asyncio.wait_for(test, 300))


async def refused(call: Any) -> grpc.aio.AioRpcError:
    """Return the error a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value
