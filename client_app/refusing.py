"""What a client answers to a query when it cannot take part: why, in one line.

Flower would send the traceback of the exception, and no name: the server could not say
which device is meant.
"""

import logging
import re
from collections.abc import Callable
from contextlib import suppress
from functools import wraps

from flwr.app import Context, Message

from client_app.device.node import NodeConfig
from common import wire
from common.errors import DataError, SettingsError
from common.settings import Settings
from common.text import CLIENT_NAME, message_of

logger = logging.getLogger("flwr.expertfleet")

Handler = Callable[[Message, Context], Message]


def refusing(handler: Handler) -> Handler:
    """Answer with the reason where data or settings of this device cannot be used."""

    @wraps(handler)
    def answer(message: Message, context: Context) -> Message:
        try:
            return handler(message, context)
        except (DataError, SettingsError) as error:
            reason = message_of(error) or type(error).__name__
            logger.error("this device cannot take part: %s", reason)
            refusal = wire.Refusal(client=name_of(context), reason=reason)
            return Message(wire.encode_refusal(refusal), reply_to=message)

    return answer


def name_of(context: Context) -> str:
    """Return a client's name; "" where its configuration does not say one."""
    try:
        node = NodeConfig.of(context.node_config)
    except SettingsError:
        name = str(context.node_config.get("name", ""))
        return name if re.fullmatch(CLIENT_NAME, name) else ""
    with suppress(SettingsError):  # then that is what it is refused for
        node = node.in_folder(Settings.from_run_config(context.run_config).data)
    return node.client(context.node_id)
