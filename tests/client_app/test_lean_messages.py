"""Every message is a process of its own on a device: it imports what it needs, no more.

torch's compiler alone is four seconds of processor time and a hundred MB, and a first
convolution on the meta device, or a first optimizer of torch's, brings it in unasked.
"""

import json
import subprocess
import sys

import pytest

CODE = """
import json, sys
from flwr.app import Message
from client_app.app import app
from common import wire
from common.inline_grid import InlineGrid
from common.settings import Settings
from common.shape import model_spec, server_task

config = json.loads(sys.argv[1])
settings = Settings.from_run_config(config)
task = server_task(settings)
grid = InlineGrid(app, 4, config)
parts = model_spec(settings, task).initial(0, ["extractor", "expert.0", "expert.1"])
order = wire.TrainOrder(
    run="r", server_round=1, experts=[0, 1], num_experts=8, top_k=1, evaluate=True
)
query = wire.Query(task=task.to_json(), data_hash="x")
sent = [
    Message(wire.encode_query(query), 1, "query"),
    Message(wire.encode_order(order, wire.pack(parts)), 1, "train"),
]
for reply in grid.send_and_receive(sent):
    assert not reply.has_error(), reply.error.reason
wire.decode_report(reply.content)
print(json.dumps(sorted(sys.modules)))
"""
HEAVY = {
    *("torch._dynamo", "torch._inductor", "sympy"),
    *("pandas", "pyarrow", "datasets", "sklearn", "transformers", "ortools", "PIL"),
}


@pytest.mark.parametrize("backbone", ["mlp", "cnn"])
def test_a_message_imports_no_compiler_and_no_library_of_other_data(
    backbone: str,
) -> None:
    config = {"backbone": backbone, "local-epochs": 1, "train-samples": 100}
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(config)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    imported = set(json.loads(done.stdout.splitlines()[-1]))
    assert sorted(imported & HEAVY) == []
