"""``python -m server_app``: run here or under Flower, keep a fleet, report."""

import argparse
import sys
from collections.abc import Callable
from importlib import import_module

# Modules with add_arguments(parser) and main(args); loaded only when asked for.
COMMANDS: dict[str, tuple[str, str]] = {
    "simulate": ("server_app.simulate", "run in this process, without Ray"),
    "report": ("server_app.report.command", "write a run's report, or compare runs"),
    "strategies": ("server_app.list_strategies", "list the strategies there are"),
    "flwr-run": ("server_app.launcher.run", "run `flwr run` on a SuperLink of its own"),
    "fleet": ("server_app.provisioning.command", "keys and certificates of devices"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m server_app", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    mains: dict[str, Callable[[argparse.Namespace], int]] = {}
    given = (argv if argv is not None else sys.argv[1:])[:1]
    for name, (module_name, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if given == [name]:
            module = import_module(module_name)
            module.add_arguments(command)
            mains[name] = module.main
    args = parser.parse_args(argv)
    try:
        return mains[args.command](args)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
