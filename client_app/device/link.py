"""What stands between this device and its server: name, port, TLS, clock, key.

Two requests on one connection, made as Flower makes its own (so through the same
proxy). The first answer has the server's time; certificates are judged by that and not
by this device's clock, which may be what is wrong: who has a wrong clock would find
every certificate expired, or not yet valid.
"""

import os
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
from cryptography import x509

from client_app.device.clock import away, clock_problem
from client_app.device.finding import Finding
from client_app.device.signed_question import (
    PATH,
    REGISTERED,
    UNKNOWN,
    signed_question,
)
from client_app.device.unpacked_bundle import Bundle

PATIENCE = 10.0
"""Seconds for an answer; a slow link takes three for TLS."""

WARNING_DAYS = 60
"""With fewer days left a certificate is spoken of (on the server as well)."""

# OpenSSL's X509_V_FLAG_NO_CHECK_TIME, see above; and its numbers of what is wrong.
_NO_CHECK_TIME = 0x200000
_WRONG_NAME = {62, 64}
_NO_SUPERLINK = {502, 503, 504}


def look_at_link(bundle: Bundle) -> list[Finding]:
    """Return what was found on the way to the server, up to what bars it."""
    url = f"https://{bundle.superlink}"
    found: list[Finding] = []
    try:
        context = tls_of(bundle)
        authorities = x509.load_pem_x509_certificates(bundle.authority.read_bytes())
    except (OSError, ValueError) as error:
        return [_damaged(f"{bundle.authority} is damaged ({error})")]
    try:
        with httpx.Client(verify=context, timeout=PATIENCE) as client:
            # A stream: the connection is still there to be looked at.
            with client.stream("HEAD", url) as head:  # 404 has a date as well
                found += _reached(head, bundle)
                found.append(_certificates(head, authorities))
                offset = _offset(head, time.time())
            if all(each.ok for each in found):
                found += _asked(client, url, bundle, offset)
            elif offset is not None:
                found.append(_clock(offset))
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
        found.append(_damaged(f"superlink {bundle.superlink!r} is no address: {error}"))
    except (httpx.HTTPError, OSError) as error:
        found.append(_barred(error, bundle))
    return found


def tls_of(bundle: Bundle) -> ssl.SSLContext:
    """Return how the server's certificate is looked at: its dates are not.

    Raises
    ------
    OSError
        If the bundle's authority cannot be read (``ssl.SSLError`` among them).
    """
    context = ssl.create_default_context(cafile=str(bundle.authority))
    context.verify_flags |= _NO_CHECK_TIME
    return context


def _damaged(what: str) -> Finding:
    text = f"{what}: unpack the bundle again, or have another one made (`fleet renew`)"
    return Finding(check="bundle", text=text, ok=False)


def _reached(head: httpx.Response, bundle: Bundle) -> Iterator[Finding]:
    address = head.extensions["network_stream"].get_extra_info("server_addr")
    host = urlsplit(f"//{bundle.superlink}").hostname
    where = f" is {address[0]}" if address and not _proxy(bundle.superlink) else ""
    yield Finding(check="name", text=f"{host}{where}")
    yield Finding(check="port", text=f"{_way(bundle.superlink)} answers")


def _certificates(head: httpx.Response, authorities: list[Any]) -> Finding:
    """Judge what the server has shown by the server's own time."""
    tls = head.extensions["network_stream"].get_extra_info("ssl_object")
    shown = x509.load_der_x509_certificate(tls.getpeercert(True))
    moment = _date(head) or datetime.now(UTC)
    signers = [each for each in authorities if _signed_by(shown, each)]
    for whose, renew, certificates in (
        ("the fleet's authority", "--ca", signers),
        ("the server's certificate", "--server", [shown]),
    ):
        for each in certificates:
            begin, end = each.not_valid_before_utc, each.not_valid_after_utc
            cure = f"`fleet renew {renew}` on the server"
            if moment >= end:
                text = f"{whose} ended on {end:%Y-%m-%d}: {cure}"
                return Finding(check="TLS", text=text, ok=False)
            if moment < begin:
                text = f"{whose} begins on {begin:%Y-%m-%d} only: is its clock right?"
                return Finding(check="TLS", text=text, ok=False)
            if (end - moment).days < WARNING_DAYS:
                text = f"{whose} ends in {(end - moment).days} days: {cure}"
                return Finding(check="TLS", text=text)
    return Finding(check="TLS", text=f"good until {shown.not_valid_after_utc:%Y-%m-%d}")


def _signed_by(shown: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        shown.verify_directly_issued_by(authority)
    except Exception:  # a signature, a name or a kind of key that does not fit
        return False
    return True


def _asked(
    client: httpx.Client, url: str, bundle: Bundle, offset: float | None
) -> list[Finding]:
    """Ask the SuperLink for this device's key; judge clock and key by the answer."""
    try:
        body, headers = signed_question(bundle.key)
    except (OSError, ValueError, TypeError) as error:
        return [_damaged(f"{bundle.key} cannot be used ({error})")]
    before = time.time()
    answer = client.post(url + PATH, content=body, headers=headers)
    # The connection is there, so half the way is well known: better than before.
    offset = _offset(answer, (before + time.time()) / 2) or offset
    if _code(answer) in (REGISTERED, UNKNOWN):  # it has looked at the time before
        return [_clock(offset, judged=True), _key(answer, bundle)]
    clock = _clock(offset, refused=answer.status_code == 401)
    return [clock, _key(answer, bundle)] if clock.ok else [clock]


def _clock(
    offset: float | None, *, judged: bool = False, refused: bool = False
) -> Finding:
    if offset is None:
        return Finding(check="clock", text="not compared, the server says no time")
    if not judged and (problem := clock_problem(offset, refused)):
        return Finding(check="clock", text=problem, ok=False, passes=True)
    return Finding(check="clock", text=f"{away(offset)} the server's")


def _key(answer: httpx.Response, bundle: Bundle) -> Finding:
    status, code, where = answer.status_code, _code(answer), bundle.superlink
    if code == REGISTERED:
        return Finding(check="key", text="registered")
    if status in _NO_SUPERLINK:
        text = f"the proxy at {where} answers, the SuperLink behind it does not"
        return Finding(check="server", text=f"{text} ({status})", ok=False, passes=True)
    if code == UNKNOWN:
        text = (
            f"the SuperLink at {where} does not know this device's key: `fleet "
            "register` on the server, unless it was removed on purpose (`fleet list`)"
        )
    elif status == 401:
        text = f"the SuperLink at {where} refuses what {bundle.key} has signed"
    else:
        text = f"what answers at {where} is no SuperLink this device knows ({status})"
    return Finding(check="key", text=text, ok=False)


def _code(answer: httpx.Response) -> Any:
    """Return Flower's number of an error, None where Flower did not answer."""
    try:
        return answer.json()["code"]
    except (ValueError, KeyError, TypeError):
        return None


def _barred(error: Exception, bundle: Bundle) -> Finding:
    """Say what an exception of httpx means: it wraps that of the socket."""
    causes = list(_causes(error))
    way = _way(bundle.superlink)
    host = urlsplit(f"//{bundle.superlink}").hostname
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            if cause.verify_code in _WRONG_NAME:
                text = (
                    f"the server's certificate is not for {host}: `fleet init --host "
                    f"{host}` on the server with all its names, and restart it"
                )
            else:
                text = (
                    f"who answers at {way} shows a certificate that {bundle.authority} "
                    f"did not sign ({cause.verify_message}): another server, or "
                    "another authority than this bundle's"
                )
            return Finding(check="TLS", text=text, ok=False)
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            text = f"what answers at {way} does not speak TLS ({cause.reason})"
            return Finding(check="TLS", text=text, ok=False)
        if isinstance(cause, socket.gaierror):
            text = (
                f"{way} is not found ({cause.strerror}): is there a network, and is "
                "the name right?"
            )
            return Finding(check="name", text=text, ok=False, passes=True)
    reason = next((os.strerror(e.errno) for e in causes if _numbered(e)), str(error))
    text = (
        f"{way} does not answer ({reason or type(error).__name__}): is the server up, "
        "and its port open to devices?"
    )
    return Finding(check="port", text=text, ok=False, passes=True)


def _causes(error: BaseException | None) -> Iterator[Any]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _numbered(error: Any) -> bool:
    return isinstance(error, OSError) and bool(error.errno)


def _offset(answer: httpx.Response, now: float) -> float | None:
    # A date is cut to whole seconds.
    said = _date(answer)
    return None if said is None else now - said.timestamp() - 0.5


def _date(answer: httpx.Response) -> datetime | None:
    try:
        return parsedate_to_datetime(answer.headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return None


def _proxy(superlink: str) -> str:
    """Return the proxy on the way, as httpx chooses it; "" for none."""
    host = urlsplit(f"//{superlink}").hostname or ""
    proxies = getproxies()
    chosen = proxies.get("https") or proxies.get("all") or ""
    return "" if proxy_bypass(host) else chosen


def _way(superlink: str) -> str:
    proxy = urlsplit(_proxy(superlink))
    return (
        f"{superlink} through the proxy {proxy.hostname}"
        if proxy.hostname
        else superlink
    )
