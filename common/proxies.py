"""Proxy variables that any HTTP client can be built with, and that spare the loopback.

Flower, Hugging Face and ``fleet`` use httpx, which reads ``HTTP_PROXY`` and its like
when a client is built and stops at parts that curl and Go understand: a SOCKS proxy, an
IPv6 network in ``NO_PROXY``. gRPC asks ``http_proxy`` even for the loopback.
"""

from collections.abc import Mapping
from contextlib import suppress
from ipaddress import AddressValueError, IPv6Address

PROXIES = (
    *("http_proxy", "https_proxy", "all_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"),
)
EXCEPTIONS = ("no_proxy", "NO_PROXY")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def usable_proxies(env: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return an environment without what httpx cannot read, and a line for each part.

    Parameters
    ----------
    env : mapping of str to str
        It is returned as it is if it names neither a proxy nor an exception.

    Returns
    -------
    env, notes
        Loopback addresses are among the exceptions. The notes repeat no value: a
        proxy's address often has a password in it.
    """
    usable, notes = dict(env), list[str]()
    if not any(name in env for name in (*PROXIES, *EXCEPTIONS)):
        return usable, notes
    for name in PROXIES:
        value = env.get(name, "")
        if value and (reason := _problem(value)):
            del usable[name]
            notes.append(f"{name} is not used: {reason}")
    # Lower case goes before upper case, in urllib, httpx and curl.
    value = env.get("no_proxy") or env.get("NO_PROXY", "")
    kept = []
    for entry in filter(None, (part.strip() for part in value.split(","))):
        plain = entry[1:-1] if entry.startswith("[") and entry.endswith("]") else entry
        if _is_readable(plain):
            kept.append(plain)
        elif any(usable.get(name) for name in PROXIES):
            notes.append(f"NO_PROXY: {entry!r} is not used: a name or an address is")
    # urllib takes "*" for every host only where it stands alone.
    merged = "*" if "*" in kept else ",".join(dict.fromkeys([*kept, *LOOPBACK]))
    usable.update(dict.fromkeys(EXCEPTIONS, merged))
    if "no_grpc_proxy" in env:  # gRPC reads no_proxy only where this is missing
        hosts = [env["no_grpc_proxy"], *LOOPBACK]
        usable["no_grpc_proxy"] = ",".join(filter(None, hosts))
    return usable, notes


def _problem(proxy: str) -> str:
    # Late: most commands meet no proxy.
    import httpx

    address = proxy if "://" in proxy else f"http://{proxy}"
    try:
        httpx.HTTPTransport(verify=False, proxy=address).close()
    except ImportError:  # httpx's only optional part here
        return "SOCKS proxies need pip install 'httpx[socks]'"
    except (ValueError, httpx.InvalidURL):
        return "not the address of a proxy, as in http://HOST:PORT"
    return ""


def _is_readable(host: str) -> bool:
    import httpx

    with suppress(AddressValueError):
        IPv6Address(host)
        return True
    with suppress(httpx.InvalidURL):
        httpx.URL(host if "://" in host else f"all://*{host}")
        return True
    return False
