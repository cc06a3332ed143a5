"""What a device ends up with, on its disk: the model it trained last, gate included.

``<state-dir>/<run>/<client>/model.safetensors``, replaced after every training round in
one piece: extractor, experts and gate of one moment, with all that is needed to predict
with them (shape, task, run, round). It never leaves the device.

Not here: what a round starts from (``client_app.kept.private``).
"""

import json
from collections.abc import Hashable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from client_app.kept.base_weights import find_base
from client_app.kept.store import BaseStore, Store, folder_name
from common.errors import SourceError
from common.inputs import kept_task
from common.moe import ModelSpec, MoEModel
from common.moe.ensemble import GatedMixture
from common.serving.servable import Servable
from common.shape import tokeniser_of_task
from common.task import Task, TextTask

FILE = "model.safetensors"
FORMAT = "expertfleet-device-1"


def save_snapshot(
    store: Store,
    client: str,
    *,
    run: str,
    server_round: int,
    model: MoEModel,
    task: Task,
    pretrained: str = "",
) -> None:
    """Keep what this round ended with.

    Parameters
    ----------
    task : Task
        Its scale worked out.
    pretrained : str
        Where this device has the checkpoint the model is built around, whose tokeniser
        it needs; "" for none.
    """
    facts = {
        "run": run,
        "client": client,
        "round": server_round,
        "spec": asdict(model.spec),
        "task": json.loads(task.to_json()),
        "pretrained": pretrained,
        "experts": list(model.held),
    }
    metadata = {"format": FORMAT, "facts": json.dumps(facts)}
    store.write(FILE, save(model.vectors(model.parts()), metadata=metadata))


class DeviceSource:
    """The newest model below a device's state directory.

    Parameters
    ----------
    state_dir : Path
    run, client : str or None
        Only of this run or client; whichever was trained last if left out.
    """

    def __init__(
        self, state_dir: Path, run: str | None = None, client: str | None = None
    ) -> None:
        self._state_dir, self._run, self._client = state_dir, run, client

    def version(self) -> Hashable:
        """Return which file it is and when it was written; SourceError if none."""
        return self._newest()

    def load(self) -> Servable:
        """Build the model with its own gate.

        Raises
        ------
        SourceError
            If there is none, or its file is damaged.
        """
        path, *_ = self._newest()
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise ValueError(f"it is not of format {FORMAT!r}")
                facts: dict[str, Any] = json.loads(metadata["facts"])
                task = kept_task(facts)
                spec = ModelSpec.from_facts(facts["spec"])
                if spec.base and not find_base(
                    BaseStore(self._state_dir), spec, facts["pretrained"]
                ):
                    raise ValueError(
                        f"its frozen base {spec.base} is neither in {self._state_dir} "
                        f"nor in {facts['pretrained']}"
                    )
                model = spec.build(facts["experts"])
                # Part by part: a second copy of them all might not fit.
                for part in model.parts():
                    model.load({part: file.get_tensor(part)})
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise SourceError(f"{path} cannot be used: {error}") from None
        return Servable(
            predictor=GatedMixture(model),
            task=task,
            run=facts["run"],
            server_round=facts["round"],
            experts=tuple(facts["experts"]),
            find_tokeniser=partial(tokeniser_of_task, task, facts.get("pretrained", ""))
            if isinstance(task, TextTask)
            else None,
        )

    def _newest(self) -> tuple[Path, int, int]:
        found = []
        for path in self._state_dir.glob(f"*/*/{FILE}"):
            folders = (path.parent.parent.name, path.parent.name)
            if not all(map(_is_of, folders, (self._run, self._client))):
                continue
            try:
                stat = path.stat()
            except OSError:
                continue
            found.append((path, stat.st_mtime_ns, stat.st_ino))
        if not found:
            run, client = self._run or "*", self._client or "*"
            wanted = f"{self._state_dir}/{run}/{client}/{FILE}"
            raise SourceError(
                f"no trained model at {wanted}: a device keeps one when it trains with "
                "state-dir set"
            )
        clients = sorted({path.parent.name for path, *_ in found})
        if len(clients) > 1:
            raise SourceError(
                f"{self._state_dir} has models of {len(clients)} clients: choose one "
                f"with --client ({', '.join(clients[:5])}"
                f"{', ...' if len(clients) > 5 else ''})"
            )
        return max(found, key=lambda item: item[1])


def _is_of(folder: str, name: str | None) -> bool:
    """Whether a folder is the one a user means: by its own name, or by what it is."""
    return name is None or folder in (name, folder_name(name))
