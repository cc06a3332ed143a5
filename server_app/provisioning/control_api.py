"""The SuperLink's lists of devices and of runs, through Flower's Control API.

A node that was taken off the list stays in it, marked ``unregistered``; its key may
not be used again.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

from common import flower_internals
from common.flower_internals import (
    CliClientHttpInterceptor,
    ControlHttpClient,
    ListNodesRequest,
    ListRunsRequest,
    NodeInfo,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    StreamLogsRequest,
    UnregisterNodeRequest,
    user_config_to_proto,
)
from server_app.provisioning import ProvisioningError
from server_app.provisioning.certificates import openssh_to_pem

T = TypeVar("T")


class UnreachableError(ProvisioningError):
    """No SuperLink answers at the address."""


@dataclass(frozen=True, kw_only=True)
class FlowerRun:
    """A run as the SuperLink knows it.

    Attributes
    ----------
    number : str
        Flower's.
    status : str
        ``pending``, ``running``, ``finished:completed``, ``finished:stopped``, ...
    details : str
        What Flower adds to that.
    submitted, finished : str
        When, in ISO 8601; "" for not yet.
    """

    number: str
    status: str
    details: str = ""
    submitted: str = ""
    finished: str = ""


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
                    flower_internals.RuntimeVersionHttpInterceptor(
                        component_name="flwr CLI"
                    ),
                ],
            )
        except (OSError, ValueError) as error:  # ssl's errors are OSErrors
            raise ProvisioningError(f"cannot use {authority}: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def nodes(self) -> list[NodeInfo]:
        """Return every node that is registered, in order of registration.

        ``status`` is ``registered`` (never connected), ``online`` or ``offline``;
        ``name`` may be empty; ``public_key`` is PEM.
        """
        answer = self._ask(self._client.ListNodes, ListNodesRequest())
        nodes = sorted(answer.nodes_info, key=lambda node: node.registered_at)
        return [node for node in nodes if node.status != "unregistered"]

    def runs(self) -> list[FlowerRun]:
        """Return the newest runs, twenty at most, the newest first."""
        answer = self._ask(self._client.ListRuns, ListRunsRequest())
        found = [
            FlowerRun(
                number=str(number),
                status=":".join(
                    filter(None, (run.status.status, run.status.sub_status))
                ),
                details=run.status.details,
                submitted=run.pending_at,
                finished=run.finished_at,
            )
            for number, run in answer.run_dict.items()
        ]
        return sorted(found, key=lambda run: run.submitted, reverse=True)

    def start(self, app_spec: str, run_config: Mapping[str, Any]) -> str:
        """Start a run of an app that the SuperLink fetches; return its number."""
        request = StartRunRequest(
            app_spec=app_spec, override_config=user_config_to_proto(dict(run_config))
        )
        answer = self._ask(self._client.StartRun, request)
        if not answer.HasField("run_id"):
            why = " ".join(answer.note.split()) or "it does not say why"
            raise ProvisioningError(f"the SuperLink started no run: {why}")
        return str(answer.run_id)

    def stop(self, number: str) -> None:
        """Stop a run.

        Raises
        ------
        ProvisioningError
            If there is none, or it has ended.
        """
        request = StopRunRequest(run_id=int(number))
        if not self._ask(self._client.StopRun, request).success:
            raise ProvisioningError(f"run {number} could not be stopped")

    def log(self, number: str, since: float) -> Iterator[tuple[str, float]]:
        """Yield what a run writes, with the time up to which that is all, to its end.

        Parameters
        ----------
        number : str
            Of the run.
        since : float
            The time up to which the log is known; 0 for none of it.
        """
        request = StreamLogsRequest(run_id=int(number), after_timestamp=since)
        answers = self._ask(self._client.StreamLogs, request)
        while (answer := self._ask(lambda _: next(answers, None), None)) is not None:
            yield answer.log_output, answer.latest_timestamp

    def register(self, name: str, public_key: str) -> None:
        """Let a device in; nothing happens if its key is registered already.

        Raises
        ------
        ProvisioningError
            If another key is registered under its name: a stranger's, or one of a list
            that was lost. Two nodes of one name would be one client to a run.
        """
        key = openssh_to_pem(public_key)
        nodes = self.nodes()
        for node in nodes:
            if node.name == name and node.public_key != key:
                raise ProvisioningError(
                    f"node {node.node_id} has the name {name!r} and another key: is "
                    f"it one of yours? `flwr supernode unregister {node.node_id}` "
                    "shuts it out"
                )
        if any(node.public_key == key for node in nodes):
            return
        request = RegisterNodeRequest(public_key=key, name=name)
        self._ask(self._client.RegisterNode, request)

    def unregister(self, public_key: str) -> None:
        """Shut a device out; nothing happens if its key is not registered."""
        for node in self.nodes():
            if node.public_key == openssh_to_pem(public_key):
                self.unregister_node(node.node_id)

    def unregister_node(self, node_id: int) -> None:
        """Shut out a node, a stranger's for example."""
        request = UnregisterNodeRequest(node_id=node_id)
        self._ask(self._client.UnregisterNode, request)

    def _ask(self, call: Callable[[Any], T], request: Any) -> T:
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
