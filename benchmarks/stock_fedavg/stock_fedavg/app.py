"""Stock Flower FedAvg shipping the whole mixture; and the bare training loop.

Nothing of ExpertFleet's machinery is used: data and model are the same, the rest is
what Flower's quickstart does.
"""

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from torch import nn

from common.data import load_client_data, parse_partition
from common.moe import MoEModel
from common.settings import Settings
from common.shape import dataset_of, model_spec
from common.wire import message_bytes

client = ClientApp()
server = ServerApp()


def settings_of(run_config: Mapping[str, Any]) -> Settings:
    """Return our settings without this app's own two."""
    ours = {k: v for k, v in run_config.items() if k not in ("out", "clients")}
    return Settings.from_run_config(ours)


def tensors_of(
    settings: Settings, number: int, clients: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a client's training inputs and labels."""
    data = load_client_data(
        dataset_of(settings),
        parse_partition(settings.data.partition),
        number,
        clients,
        settings.run.seed,
        held_out=settings.data.held_out,
        train_samples=settings.data.train_samples,
    )
    x = torch.from_numpy(data.normalise(data.x_train))
    return x, torch.from_numpy(data.y_train.copy())


def train(
    model: MoEModel, x: torch.Tensor, y: torch.Tensor, settings: Settings
) -> None:
    """Train as anybody would: SGD on the cross-entropy plus the balancing loss."""
    rules = settings.training
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=rules.lr,
        momentum=rules.momentum,
        weight_decay=rules.weight_decay,
    )
    criterion = nn.CrossEntropyLoss()
    model.train()
    for _ in range(rules.local_epochs):
        for batch in torch.randperm(len(y)).split(rules.batch_size):
            routed = model(x[batch])
            loss = criterion(routed.logits, y[batch])
            loss = loss + settings.model.gate_balance * routed.balance_loss()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@client.train()
def train_round(message: Message, context: Context) -> Message:
    """Train the whole mixture and send it back."""
    settings = settings_of(context.run_config)
    torch.set_num_threads(settings.training.threads)
    node = context.node_config
    x, y = tensors_of(settings, int(node["partition-id"]), int(node["num-partitions"]))
    spec = model_spec(settings, dataset_of(settings))
    model = spec.build(range(spec.num_experts))
    received: Any = message.content["arrays"]
    model.load_state_dict(received.to_torch_state_dict())
    train(model, x, y, settings)
    content = RecordDict(
        {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"num-examples": len(y)}),
        }
    )
    return Message(content, reply_to=message)


class Counted(FedAvg):
    """FedAvg that counts the bytes of its messages."""

    bytes_down = 0
    bytes_up = 0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Count what goes out."""
        messages = list(super().configure_train(server_round, arrays, config, grid))
        self.bytes_down += sum(map(message_bytes, messages))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Count what comes in."""
        replies = list(replies)
        self.bytes_up += sum(map(message_bytes, replies))
        return super().aggregate_train(server_round, replies)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Run FedAvg; write when every round ended and how much a round sent."""
    settings = settings_of(context.run_config)
    clients = int(context.run_config["clients"])
    spec = model_spec(settings, dataset_of(settings))
    out = Path(str(context.run_config["out"]))

    def note(server_round: int, arrays: ArrayRecord) -> None:
        if server_round:  # not of the model before the first
            with (out / "ended").open("a") as ended:
                print(time.time(), file=ended)

    strategy = Counted(
        fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients
    )
    strategy.start(
        grid,
        ArrayRecord(spec.build(range(spec.num_experts)).state_dict()),
        num_rounds=settings.rounds.num_rounds,
        evaluate_fn=note,
    )
    rounds = settings.rounds.num_rounds
    sent = (strategy.bytes_down / rounds, strategy.bytes_up / rounds)
    (out / "bytes.json").write_text(json.dumps(sent))
