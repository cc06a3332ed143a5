"""Provisioning: who may connect to the SuperLink, and with which keys.

``certificates`` makes keys and certificates, ``directory`` keeps the fleet's files,
``bundle`` packs what one device needs, ``superlink`` talks to Flower's Control API and
``command`` is ``python -m server_app fleet``. Nothing in here trains or plans.
"""


class ProvisioningError(ValueError):
    """Something the user asked for cannot be done; the message is one line."""
