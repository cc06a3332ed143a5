"""TLS on the loopback: who is answered and who is not."""

import tarfile
import time
from collections.abc import Hashable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.serving import callers
from common.serving.callers import CallerListError
from common.serving.credentials import Credentials, CredentialsError
from common.serving.inference_pb2_grpc import InferenceStub
from common.serving.server import Server
from common.serving.tensors import decode
from tests.common.serving.support import (
    Authority,
    Shelf,
    by_torch,
    images,
    make_servable,
    options,
    refused,
    request,
    run,
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
            call = InferenceStub(channel).Predict(request(images(5)), timeout=100)
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

    run(test())


def test_a_fleets_files_serve_its_devices(tmp_path: Path) -> None:
    from server_app.__main__ import main
    from server_app.commands.serve import FleetMembers
    from server_app.provisioning.directory import FleetDirectory

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
    members = FleetMembers(FleetDirectory(fleet))
    ca, key, certificate = (
        (bundle / name).read_bytes() for name in ("ca.crt", "client.key", "client.crt")
    )
    servable = make_servable()

    async def test() -> None:
        async with serving(
            Shelf(servable), credentials=credentials, members=members
        ) as server:
            device = grpc.ssl_channel_credentials(ca, key, certificate)
            answer = await ask(server.address, device)
            np.testing.assert_allclose(answer, by_torch(servable, images(5)), atol=1e-5)
            anybody = grpc.ssl_channel_credentials(ca)
            assert await ask(server.address, anybody) == grpc.StatusCode.UNAVAILABLE
            assert main(["fleet", *where, "remove", "pi0"]) == 0
            denied = grpc.StatusCode.PERMISSION_DENIED
            assert await ask(server.address, device) == denied

    run(test())


class Listed:
    """A list of callers that the test changes."""

    def __init__(self, *certificates: Path) -> None:
        self.listed = {fingerprint(path): path.stem for path in certificates}
        self.damaged = False

    def version(self) -> Hashable:
        return (*self.listed, self.damaged)

    def names(self) -> Mapping[str, str]:
        if self.damaged:
            raise CallerListError("fleet.json is damaged")
        return dict(self.listed)


def fingerprint(path: Path) -> str:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return certificate.fingerprint(hashes.SHA256()).hex()


def test_only_callers_on_the_list_are_answered_as_it_is_now(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ca = Authority(tmp_path)
    credentials = Credentials.read(*ca.issue("server"), ca.path)
    pi0, pi1 = ca.issue("pi0"), ca.issue("pi1")
    listed = Listed(pi0[0], pi1[0])
    denied = grpc.StatusCode.PERMISSION_DENIED

    async def test() -> None:
        shelf = Shelf(make_servable())
        async with (
            serving(shelf, credentials=credentials, members=listed) as server,
            grpc.aio.secure_channel(
                server.address, channel_credentials(ca, pi0)
            ) as channel,
        ):
            stub = InferenceStub(channel)
            health: Any = health_pb2_grpc.HealthStub(channel)
            stream = stub.PredictStream()
            await stream.write(request(images(1)))
            assert len((await stream.read()).classes) == 1
            del listed.listed[fingerprint(pi0[0])]
            # The stream that was open, new calls on the connection, new connections.
            assert await stream.code() == denied
            assert (await refused(stub.Predict(request(images(1))))).code() == denied
            asked = health.Check(health_pb2.HealthCheckRequest())
            assert (await refused(asked)).code() == denied
            assert await ask(server.address, channel_credentials(ca, pi0)) == denied
            answer = await ask(server.address, channel_credentials(ca, pi1))
            assert answer.shape == (5, 10)
            # A list that cannot be read lets nobody in who was not in before.
            listed.damaged = True
            assert await ask(server.address, channel_credentials(ca, pi0)) == denied
            answer = await ask(server.address, channel_credentials(ca, pi1))
            assert answer.shape == (5, 10)
            assert caplog.text.count("fleet.json is damaged") == 1
            listed.listed[fingerprint(pi0[0])] = "pi0"
            listed.damaged = False
            await stub.Predict(request(images(1)))

    run(test())


def test_a_list_that_cannot_be_read_serves_nobody(tmp_path: Path) -> None:
    listed = Listed()
    listed.damaged = True
    with pytest.raises(CallerListError, match=r"fleet\.json is damaged"):
        Server(Shelf(make_servable()), options(members=listed))


def test_a_certificate_ends_with_its_last_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = Authority(tmp_path)
    credentials = Credentials.read(*ca.issue("server"), ca.path)
    short, over = ca.issue("short", hours=1), ca.issue("over", hours=-1)
    expired = grpc.StatusCode.UNAUTHENTICATED

    async def test() -> None:
        async with serving(Shelf(make_servable()), credentials=credentials) as server:
            # TLS itself refuses one that had expired when the connection began.
            assert await ask(server.address, channel_credentials(ca, over)) == (
                grpc.StatusCode.UNAVAILABLE
            )
            own = channel_credentials(ca, short)
            async with grpc.aio.secure_channel(server.address, own) as channel:
                stub = InferenceStub(channel)
                stream = stub.PredictStream()
                await stream.write(request(images(1)))
                assert len((await stream.read()).classes) == 1
                late = time.time() + 3601
                monkeypatch.setattr(callers, "time", SimpleNamespace(time=lambda: late))
                assert await stream.code() == expired
                error = await refused(stub.Predict(request(images(1))))
                assert error.code() == expired

    run(test())


def test_a_renewed_certificate_needs_no_restart(tmp_path: Path) -> None:
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    certificate, key = old.issue("server")
    credentials = Credentials.read(certificate, key, None)

    async def test() -> None:
        async with serving(Shelf(make_servable()), credentials=credentials) as server:
            for authority in (old, new):
                answer = await ask(server.address, channel_credentials(authority))
                assert answer.shape == (5, 10)
                key.write_bytes(b"half")  # as between two files that are renewed
                answer = await ask(server.address, channel_credentials(authority))
                assert answer.shape == (5, 10)
                for path, renewed in zip(
                    (certificate, key), new.issue("server"), strict=True
                ):
                    path.write_bytes(renewed.read_bytes())

    run(test())


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
