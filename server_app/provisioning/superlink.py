"""The SuperLink's list of devices, through Flower's Control API as its own CLI does.

A node that was taken off the list stays in it, marked ``unregistered``; its key may
not be used again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from flwr.cli.cli_client_interceptor import CliClientHttpInterceptor
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    RegisterNodeRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from server_app.provisioning import ProvisioningError
from server_app.provisioning.certificates import openssh_to_pem

Answer = TypeVar("Answer")


class UnreachableError(ProvisioningError):
    """No SuperLink answers at the address."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A device as the SuperLink sees it.

    Attributes
    ----------
    node_id : int
    name : str
        Given at its registration; may be empty.
    status : str
        ``registered`` (never connected), ``online`` or ``offline``.
    public_key : bytes
        PEM.
    since : str
        ISO time of its last change between online and offline; may be empty.
    """

    node_id: int
    name: str
    status: str
    public_key: bytes
    since: str


class ControlAPI:
    """A connection to one SuperLink.

    Parameters
    ----------
    address : str
        HOST:PORT.
    authority : Path
        The certificate the SuperLink's must be signed by.
    """

    def __init__(self, address: str, authority: Path) -> None:
        self.address = address
        try:
            self._client = ControlHttpClient.from_server_address(
                address,
                insecure=False,
                root_certificates=authority.read_bytes(),
                interceptors=[
                    CliClientHttpInterceptor(),
                    RuntimeVersionHttpInterceptor(component_name="flwr CLI"),
                ],
            )
        except (OSError, ValueError) as error:  # ssl's errors are OSErrors
            raise ProvisioningError(f"cannot use {authority}: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close()

    def nodes(self) -> list[Node]:
        """Return every node that is registered, in order of registration."""
        answer = self._ask(self._client.ListNodes, ListNodesRequest())
        return [
            Node(
                node_id=node.node_id,
                name=node.name,
                status=node.status,
                public_key=node.public_key,
                since=node.last_activated_at
                if node.status == "online"
                else node.last_deactivated_at,
            )
            for node in sorted(answer.nodes_info, key=lambda n: n.registered_at)
            if node.status != "unregistered"
        ]

    def register(self, name: str, public_key: str) -> None:
        """Let a device in; nothing happens if its key is registered already."""
        key = openssh_to_pem(public_key)
        if any(node.public_key == key for node in self.nodes()):
            return
        request = RegisterNodeRequest(public_key=key, name=name)
        self._ask(self._client.RegisterNode, request)

    def unregister(self, public_key: str) -> None:
        """Shut a device out; nothing happens if its key is not registered."""
        key = openssh_to_pem(public_key)
        for node in self.nodes():
            if node.public_key == key:
                request = UnregisterNodeRequest(node_id=node.node_id)
                self._ask(self._client.UnregisterNode, request)

    def _ask(self, call: Callable[[Any], Answer], request: Any) -> Answer:
        try:
            return call(request)
        except httpx.HTTPStatusError as error:
            reason = error.response.text.strip() or error.response.reason_phrase
            raise ProvisioningError(
                f"the SuperLink at {self.address} refused: {' '.join(reason.split())}"
            ) from None
        except httpx.TransportError as error:
            raise UnreachableError(
                f"no SuperLink answers at {self.address}: {error}"
            ) from None
