"""Whatever a shell has in its proxy variables, an httpx client can be built."""

import os

import httpx
import pytest

from common.proxies import EXCEPTIONS, PROXIES, usable_proxies

NAMES = (*PROXIES, *EXCEPTIONS, "no_grpc_proxy")


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    "env",
    [
        {"ALL_PROXY": "socks4://127.0.0.1:1080"},
        {"all_proxy": "socks5://127.0.0.1:1080", "HTTP_PROXY": "http://p:1"},
        {"https_proxy": "http://proxy:port"},
        {"HTTP_PROXY": "ftp://proxy:21"},
        {"NO_PROXY": "localhost,[::1]"},
        {"no_proxy": "localhost,fd07:b51a:cc66:f0::/64", "http_proxy": "p:1"},
        {"NO_PROXY": "example.org, a:b:c ,*.lan,10.0.0.0/8", "HTTPS_PROXY": "p:1"},
    ],
)
def test_a_client_can_be_built_and_asks_no_proxy_for_the_loopback(
    env: dict[str, str], clean: pytest.MonkeyPatch
) -> None:
    usable, _ = usable_proxies({**os.environ, **env})
    for name in NAMES:
        if name in usable:
            clean.setenv(name, usable[name])
    with httpx.Client() as client:
        for url in ("http://127.0.0.1:9/", "https://localhost:9/", "http://[::1]:9/"):
            chosen = client._transport_for_url(httpx.URL(url))
            assert chosen is client._transport, url


def test_what_can_be_used_stays() -> None:
    env = {"HTTPS_PROXY": "http://me:secret@proxy:3128", "NO_PROXY": "a.org,10.0.0.0/8"}
    usable, notes = usable_proxies(env)
    assert usable["HTTPS_PROXY"] == env["HTTPS_PROXY"]
    assert usable["no_proxy"] == usable["NO_PROXY"]
    assert usable["no_proxy"].split(",")[:2] == ["a.org", "10.0.0.0/8"]
    assert notes == []
    # Of both spellings urllib and curl read the lower one.
    usable, _ = usable_proxies({**env, "no_proxy": "b.org"})
    assert usable["NO_PROXY"].startswith("b.org,127.0.0.1")


def test_what_is_left_out_is_told_without_its_password() -> None:
    env = {"ALL_PROXY": "ftp://me:secret@proxy:1", "HTTP_PROXY": "p:1"}
    usable, notes = usable_proxies({**env, "NO_PROXY": "fd07::/64"})
    assert "ALL_PROXY" not in usable
    assert [note.split(":")[0] for note in notes] == [
        "ALL_PROXY is not used",
        "NO_PROXY",
    ]
    assert "secret" not in "".join(notes)


def test_every_host_is_excepted_as_urllib_reads_it() -> None:
    assert usable_proxies({"no_proxy": "a.org,*"})[0]["no_proxy"] == "*"


def test_grpc_has_exceptions_of_its_own() -> None:
    env = {"http_proxy": "http://p:1", "no_grpc_proxy": "a.org"}
    assert "127.0.0.1" in usable_proxies(env)[0]["no_grpc_proxy"].split(",")


def test_an_environment_without_proxies_is_left_alone() -> None:
    assert usable_proxies({"PATH": "/bin"}) == ({"PATH": "/bin"}, [])
