"""The speed of a link: what follows from how long questions took, and what is asked."""

import httpx
import pytest

from client_app.device import uplink
from client_app.device.link import tls_of
from client_app.device.signed_question import PATH, REGISTERED, signed_question
from client_app.device.unpacked_bundle import Bundle
from client_app.device.uplink import declared, described, measured_uplink
from common.chunks import VARIABLE


def asked(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle, rate: float, burst: int = 0
) -> tuple[float, list[int]]:
    """Return what is measured of a line, and the sizes that were tried."""
    tried: list[int] = []

    def seconds(client: httpx.Client, bundle: Bundle, more: int) -> float:
        tried.append(more)
        if (more - burst) / rate > uplink.TIMEOUT:
            raise httpx.WriteTimeout("too slow")
        return 0.5 + max(0, more - burst) / rate

    monkeypatch.setattr(uplink, "_seconds", seconds)
    return measured_uplink(bundle), tried


@pytest.mark.parametrize(
    ("rate", "tried"),
    [
        # 16 384 bytes take 4 s, which is enough.
        (4_000.0, [0, 0, 2**14]),
        # 0.5 s; 65 536 take 2 s.
        (32_000.0, [0, 0, 2**14, 2**16]),
        # 0.13 s, 0.5 s, 2.1 s
        (125_000.0, [0, 0, 2**14, 2**16, 2**18]),
    ],
)
def test_a_slow_line_is_measured_with_as_little_as_will_do(
    rate: float, tried: list[int], monkeypatch: pytest.MonkeyPatch, bundle: Bundle
) -> None:
    found, sizes = asked(monkeypatch, bundle, rate)
    assert found == pytest.approx(rate)
    assert sizes == tried


def test_what_passes_in_a_burst_makes_no_line_quick(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle
) -> None:
    found, sizes = asked(monkeypatch, bundle, 16_000.0, burst=16_000)
    assert sizes == [0, 0, 2**14, 2**16]
    assert found == pytest.approx(16_000.0, rel=0.02)


def test_a_quick_line_is_left_to_flower(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle
) -> None:
    # 5 MiB in 5 s is where Flower's own size does.
    assert asked(monkeypatch, bundle, 1_100_000.0)[0] == 0
    assert asked(monkeypatch, bundle, 1e9)[0] == 0


def test_a_line_on_which_nothing_arrives_has_no_speed(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle
) -> None:
    assert asked(monkeypatch, bundle, 100.0) == (0, [0, 0, 2**14])


def test_without_a_server_nothing_is_measured(bundle: Bundle) -> None:
    assert measured_uplink(bundle) == 0


@pytest.mark.usefixtures("superlink")
def test_the_question_is_the_same_whatever_it_carries(bundle: Bundle) -> None:
    with httpx.Client(verify=tls_of(bundle)) as client:
        for more in (0, 1, 200, 2**18):
            body, headers = signed_question(bundle.key, more)
            assert len(body) >= more
            url = f"https://{bundle.superlink}{PATH}"
            answer = client.post(url, content=body, headers=headers)
            assert answer.json()["code"] == REGISTERED


def test_an_owners_word_is_read() -> None:
    assert declared({"uplink-bytes-per-second": 5, "name": "pi"}) == (5.0, 0.0)
    assert declared({"downlink-bytes-per-second": 7.5}) == (0.0, 7.5)
    assert declared({"uplink-bytes-per-second": "many"}) == (0.0, 0.0)


def test_what_was_chosen_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert described(32_000.0, measured=True) == (
        "256 kbit/s up (measured): messages go in pieces of 128 KiB"
    )
    assert described(0.0, measured=True) == (
        "too quick to tell upwards: messages go in pieces of 5120 KiB"
    )
    monkeypatch.setenv(VARIABLE, "102400")
    assert described(16_000.0, measured=False) == (
        f"128 kbit/s up (declared): messages go in pieces of 100 KiB ({VARIABLE})"
    )
