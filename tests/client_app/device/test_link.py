"""The way to the server, over real TLS: what is in it is named, and by whom it goes."""

import re
import socket
import threading
from dataclasses import replace

import pytest
from flwr.common import constant
from flwr.supercore.error import ApiErrorCode

from client_app.device import clock, link, signed_question
from client_app.device.clock import away, clock_problem
from client_app.device.finding import Finding, first_problem
from client_app.device.link import look_at_link
from client_app.device.unpacked_bundle import Bundle
from server_app.provisioning.certificates import (
    WARNING_DAYS,
    Authority,
    certificate_pem,
    device_key,
    private_openssh,
)
from server_app.provisioning.directory import FleetDirectory
from tests.client_app.device.fake_superlink import FakeSuperLink
from tests.ports import free_port

DAY = 86400.0


def problem(bundle: Bundle) -> Finding:
    found = first_problem(look_at_link(bundle))
    assert found is not None
    return found


@pytest.mark.usefixtures("superlink")
def test_a_good_way_is_told_step_by_step(bundle: Bundle) -> None:
    found = look_at_link(bundle)
    assert [(each.check, each.ok) for each in found] == [
        *(("name", True), ("port", True), ("TLS", True)),
        *(("clock", True), ("key", True)),
    ]


@pytest.mark.usefixtures("superlink")
@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (200.0, ""),
        (400.0, "7 minutes behind the server's"),
        # The answer may have been some seconds on its way.
        (-60.0, r"[56]\d s ahead of the server's"),
        # By the device's own time the certificates have ended, or not begun.
        (-9 * DAY * 365, "3285 days ahead of the server's"),
        (9 * DAY * 365, "3285 days behind the server's"),
    ],
)
def test_the_clock_is_compared_with_the_servers(
    ahead: float,
    said: str,
    bundle: Bundle,
    fleet: FleetDirectory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FakeSuperLink, "ahead", ahead)
    found = [each for each in look_at_link(bundle) if each.check == "clock"]
    assert re.search(said, found[0].text)
    assert (found[0].ok, found[0].passes) == (not said, bool(said))


@pytest.mark.parametrize(
    ("offset", "refused", "bad"),
    [
        *((6.0, False, False), (6.0, True, True), (4.0, True, True)),
        *((7.0, False, True), (3.0, True, False), (-300.0, True, False)),
        *((-304.0, True, True), (-306.0, False, False), (-307.0, False, True)),
    ],
)
def test_near_the_limit_the_servers_answer_decides(
    offset: float, refused: bool, bad: bool
) -> None:
    assert bool(clock_problem(offset, refused)) == bad


def test_how_far_a_clock_is_away_in_words() -> None:
    assert away(60.4) == "60 s ahead of"
    assert away(-119.0) == "119 s behind"
    assert away(-400.0) == "7 minutes behind"
    assert away(7200.0) == "2 hours ahead of"


@pytest.mark.usefixtures("superlink")
def test_a_refusal_with_a_clock_near_the_limit_is_the_clock(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It refuses whatever the time is: how late a question comes depends on the machine.
    monkeypatch.setattr(FakeSuperLink, "status", 401)
    monkeypatch.setattr(FakeSuperLink, "ahead", -5.5)
    found = problem(bundle)
    assert (found.check, found.passes) == ("clock", True)
    monkeypatch.setattr(FakeSuperLink, "ahead", 100.0)
    found = problem(bundle)
    assert (found.check, found.passes) == ("key", False)
    assert "refuses what" in found.text


@pytest.mark.usefixtures("superlink")
def test_a_key_that_nobody_registered_and_a_superlink_that_is_down(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeSuperLink, "known", set())
    found = problem(bundle)
    assert (found.check, found.passes) == ("key", False)
    assert "`fleet register` on the server" in found.text
    monkeypatch.setattr(FakeSuperLink, "status", 502)
    found = problem(bundle)
    assert (found.check, found.passes) == ("server", True)
    monkeypatch.setattr(FakeSuperLink, "status", 404)
    assert "no SuperLink this device knows (404)" in problem(bundle).text
    bundle.key.write_bytes(private_openssh(device_key())[:99])
    assert problem(bundle).text.startswith(f"{bundle.key} cannot be used")


def test_nobody_answers(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    found = problem(bundle)
    assert (found.check, found.passes) == ("port", True)
    assert "does not answer (Connection refused)" in found.text
    # It takes connections and says nothing.
    monkeypatch.setattr(link, "PATIENCE", 0.3)
    host, _, port = bundle.superlink.rpartition(":")
    with socket.create_server((host, int(port))):
        found = problem(bundle)
    assert (found.check, found.passes) == ("port", True)
    found = problem(replace(bundle, superlink="no-such-host.invalid:8000"))
    assert (found.check, found.passes) == ("name", True)
    assert "no-such-host.invalid:8000 is not found" in found.text
    for address in ("[::1:2", ""):
        assert problem(replace(bundle, superlink=address)).check == "bundle", address
    bundle.authority.write_text("no certificate")
    assert problem(bundle).text.startswith(f"{bundle.authority} is damaged")


def test_a_proxy_on_the_way_is_named(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://u:secret@localhost:{free_port()}")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.delenv("no_proxy", raising=False)
    found = problem(replace(bundle, superlink="fleet.example:8000"))
    assert "fleet.example:8000 through the proxy localhost does not" in found.text
    assert found.passes


def test_a_certificate_for_another_name_or_of_another_authority(
    bundle: Bundle, fleet: FleetDirectory, superlink: str
) -> None:
    port = superlink.rpartition(":")[2]
    found = problem(replace(bundle, superlink=f"localhost:{port}"))
    assert (found.check, found.passes) == ("TLS", False)
    assert "not for localhost: `fleet init --host localhost`" in found.text
    other = certificate_pem(Authority.create("other").certificate)
    bundle.authority.write_bytes(other)
    found = problem(bundle)
    assert (found.check, found.passes) == ("TLS", False)
    assert "another authority than this bundle's" in found.text


def test_what_speaks_no_tls(bundle: Bundle) -> None:
    host, _, port = bundle.superlink.rpartition(":")
    with socket.create_server((host, int(port))) as door:

        def greet() -> None:
            connection, _ = door.accept()
            with connection:
                connection.recv(1)
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        found = problem(bundle)
        thread.join()
    assert (found.check, found.passes) == ("TLS", False)
    assert "does not speak TLS" in found.text


@pytest.mark.parametrize(
    ("ahead", "text", "ok"),
    [
        (764.5, "good until", True),
        (
            765.5,
            "the server's certificate ends in 59 days: `fleet renew --server`",
            True,
        ),
        (825.5, "the server's certificate ended on", False),
        (3650.5, "the fleet's authority ended on", False),
        (-1.5, "begins on", False),
    ],
)
def test_certificates_are_judged_by_the_servers_time(
    ahead: float,
    text: str,
    ok: bool,
    bundle: Bundle,
    superlink: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FakeSuperLink, "ahead", ahead * DAY)
    [found] = [each for each in look_at_link(bundle) if each.check == "TLS"]
    assert text in found.text
    assert found.ok == ok


def test_what_is_compared_is_flowers() -> None:
    assert constant.SYSTEM_TIME_TOLERANCE == clock.AHEAD
    assert constant.TIMESTAMP_TOLERANCE + constant.SYSTEM_TIME_TOLERANCE == clock.BEHIND
    codes = (signed_question.REGISTERED, signed_question.UNKNOWN)
    assert codes == (
        ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL,
        ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED,
    )
    assert link.WARNING_DAYS == WARNING_DAYS
