"""TLS on the loopback: who is answered and who is not."""

import asyncio
import tarfile
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from common.serving.credentials import Credentials, CredentialsError
from common.serving.inference_pb2_grpc import InferenceStub
from common.serving.tensors import decode
from tests.common.serving.support import (
    Authority,
    Shelf,
    by_torch,
    images,
    make_servable,
    request,
    serving,
)


def channel_credentials(
    ca: Authority, own: tuple[Path, Path] | None = None
) -> grpc.ChannelCredentials:
    certificate, key = (p.read_bytes() for p in own) if own else (None, None)
    return grpc.ssl_channel_credentials(ca.path.read_bytes(), key, certificate)


async def ask(address: str, credentials: grpc.ChannelCredentials | None) -> Any:
    open_channel = (
        grpc.aio.insecure_channel(address)
        if credentials is None
        else grpc.aio.secure_channel(address, credentials)
    )
    async with open_channel as channel:
        try:
            call = InferenceStub(channel).Predict(request(images(5)), timeout=10)
            return decode((await call).probabilities, "probabilities")
        except grpc.aio.AioRpcError as error:
            return error.code()


@pytest.mark.parametrize("mutual", [False, True])
def test_only_callers_with_the_right_certificates_are_answered(
    tmp_path: Path, mutual: bool
) -> None:
    ours = Authority(tmp_path / "ours")
    theirs = Authority(tmp_path / "theirs")
    certificate, key = ours.issue("server")
    client_ca = ours.path if mutual else None
    credentials = Credentials.read(certificate, key, client_ca)
    device, stranger = ours.issue("device"), theirs.issue("stranger")
    servable = make_servable()
    unavailable = grpc.StatusCode.UNAVAILABLE

    async def test() -> None:
        async with serving(Shelf(servable), credentials=credentials) as server:
            address = server.address
            answer = await ask(address, channel_credentials(ours, device))
            expected = by_torch(servable, images(5))
            np.testing.assert_allclose(answer, expected, atol=1e-5)
            assert await ask(address, None) == unavailable
            assert await ask(address, channel_credentials(theirs, device)) == (
                unavailable
            )
            for own in (None, stranger):
                answer = await ask(address, channel_credentials(ours, own))
                if mutual:
                    assert answer == unavailable
                else:
                    np.testing.assert_allclose(answer, expected, atol=1e-5)

    asyncio.run(asyncio.wait_for(test(), 60))


def test_a_fleets_files_serve_its_devices(tmp_path: Path) -> None:
    from server_app.__main__ import main

    fleet = tmp_path / "fleet"
    where = ["--dir", str(fleet)]
    assert main(["fleet", *where, "init", "--host", "127.0.0.1", "--size", "1"]) == 0
    assert main(["fleet", *where, "add", "pi0"]) == 0
    bundle = tmp_path / "bundle"
    with tarfile.open(fleet / "bundles" / "pi0.tar") as tar:
        tar.extractall(bundle, filter="data")
    credentials = Credentials.read(
        fleet / "server.pem", fleet / "server.key", fleet / "ca.crt"
    )
    ca, key, certificate = (
        (bundle / name).read_bytes() for name in ("ca.crt", "client.key", "client.crt")
    )
    servable = make_servable()

    async def test() -> None:
        async with serving(Shelf(servable), credentials=credentials) as server:
            device = grpc.ssl_channel_credentials(ca, key, certificate)
            answer = await ask(server.address, device)
            np.testing.assert_allclose(answer, by_torch(servable, images(5)), atol=1e-5)
            anybody = grpc.ssl_channel_credentials(ca)
            assert await ask(server.address, anybody) == grpc.StatusCode.UNAVAILABLE

    asyncio.run(asyncio.wait_for(test(), 60))


def test_files_that_make_no_tls_server(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    certificate, key = ca.issue("server")
    _, other = ca.issue("other")
    broken = tmp_path / "broken.pem"
    broken.write_text("hello")
    assert Credentials.read(None, None, None) is None
    for given, told in (
        ((certificate, None, None), "--tls-cert and --tls-key go together"),
        ((None, None, ca.path), "--tls-cert and --tls-key go together"),
        ((tmp_path / "no.pem", key, None), r"no\.pem cannot be read: No such file"),
        ((certificate, certificate, None), r"server\.crt holds no PEM private key"),
        ((certificate, other, None), "no pair of certificate and key"),
        ((certificate, key, broken), r"broken\.pem holds no PEM certificate"),
    ):
        with pytest.raises(CredentialsError, match=told):
            Credentials.read(*given)
