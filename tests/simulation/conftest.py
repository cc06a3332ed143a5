"""A Flower app small enough to read at a glance, to launch in tests."""

from pathlib import Path

import pytest

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "toy"
version = "0.1.0"
description = "A toy"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "toy"
fab-include = ["toy_app/**"]

[tool.flwr.app.components]
serverapp = "toy_app.app:server"
clientapp = "toy_app.app:client"

[tool.flwr.app.config]
behaviour = "well"
num-rounds = 1
output-dir = "results"
"""

APP = """
import os
import sys
import time
from pathlib import Path

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client = ClientApp()
server = ServerApp()


@client.train()
def train(message, context):
    number = context.node_config["partition-id"]
    return Message(RecordDict({"m": MetricRecord({"id": number})}), reply_to=message)


@server.main()
def main(grid, context):
    config = context.run_config
    while len(nodes := list(grid.get_node_ids())) < 3:
        time.sleep(0.1)
    for number in range(1, config["num-rounds"] + 1):
        order = lambda: RecordDict({"c": ConfigRecord({"round": number})})
        replies = list(grid.send_and_receive([
            Message(order(), dst_node_id=node, message_type="train") for node in nodes
        ]))
        ids = sorted(reply.content["m"]["id"] for reply in replies)
        print(f"round {number} ids {ids} cwd {os.getcwd()}", flush=True)
        if config["behaviour"] == "raise":
            raise ValueError("the toy broke")
        if config["behaviour"] == "hang":
            time.sleep(1000)
    output = Path(config["output-dir"])
    output.mkdir(parents=True)
    (output / "done").write_text("done")
    if config["behaviour"] == "exit":
        sys.exit(3)
"""


@pytest.fixture
def toy_app(tmp_path: Path) -> Path:
    app = tmp_path / "toy"
    (app / "toy_app").mkdir(parents=True)
    (app / "pyproject.toml").write_text(PYPROJECT)
    (app / "toy_app" / "__init__.py").touch()
    (app / "toy_app" / "app.py").write_text(APP)
    return app
