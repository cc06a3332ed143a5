"""``expertfleet device serve``: this device's experts and gate over gRPC."""

from typing import Any

from client_app.commands.predict import Client, Run, StateDir
from client_app.device import profiler
from common.commands import takes
from common.serving import cli


@takes(cli.serve)
def command(
    state_dir: StateDir,
    run: Run = None,
    client: Client = None,
    memory: cli.Memory = None,
    **options: Any,
) -> int:
    """Serve until told to stop; 2 for anything that cannot be used."""
    from client_app.kept.snapshot import DeviceSource

    # Training goes on beside it and needs most of what there is.
    memory = memory or profiler.memory()["memory_bytes"] // 8
    source = DeviceSource(state_dir, run, client)
    return cli.serve(source, memory, None, **options)
