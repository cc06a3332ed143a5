"""Provisioning: who may connect to the SuperLink, and with which keys.

``certificates`` makes keys and certificates, ``issuing`` those of a server and a
device, ``authority`` keeps the one that signs, ``directory`` the fleet's other files,
written by ``private_files``, and ``members`` its list; ``bundle`` packs what one device
needs and ``server_files`` what the server is started from; ``control_api`` talks to
Flower's Control API, ``exposure`` tries its doors, ``apps`` signs what devices run,
``validity`` says what ends soon, ``status`` what the devices of a run did and ``check``
whether all of it is well; ``command`` is ``python -m server_app fleet``, and
``device_commands``, ``run_commands`` and ``status_commands`` its commands, which get at
a fleet by ``fleet_access``. Nothing in here trains or plans.
"""


class ProvisioningError(ValueError):
    """Something the user asked for cannot be done; the message is one line."""
