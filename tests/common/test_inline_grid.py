"""The grid of one process: what goes wrong on a client is its error, as on a device."""

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from common.inline_grid import InlineGrid


@pytest.mark.parametrize("serialise", [False, True])
def test_a_reply_that_cannot_be_encoded_is_its_clients_error(
    serialise: bool, task_identity: None
) -> None:
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        said = ConfigRecord()
        said["name"] = "\ud800" if context.node_config["partition-id"] else "b"
        return Message(RecordDict({"said": said}), reply_to=message)

    grid = InlineGrid(app, 2, {}, serialise=serialise)
    nodes = sorted(grid.get_node_ids())
    queries = [Message(RecordDict(), node, "query") for node in nodes]
    replies = {
        reply.metadata.src_node_id: reply for reply in grid.send_and_receive(queries)
    }
    assert replies[nodes[0]].content.config_records["said"]["name"] == "b"
    # Within the process nothing is encoded; on a wire half a character cannot be.
    assert replies[nodes[1]].has_error() == serialise
