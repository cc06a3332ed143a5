"""``python -m client_app``: what a device's owner runs on the device."""

import argparse
import sys
from collections.abc import Callable
from importlib import import_module

# Modules with add_arguments(parser) and main(args); loaded only when asked for.
COMMANDS: dict[str, tuple[str, str]] = {
    "profile": ("client_app.profile_command", "what this device is and has to give"),
    "supernode": ("client_app.supernode", "connect to the SuperLink and train"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m client_app", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    mains: dict[str, Callable[[argparse.Namespace], int]] = {}
    given = sys.argv[1:] if argv is None else argv
    for name, (module_name, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if given[:1] == [name]:
            module = import_module(module_name)
            module.add_arguments(command)
            mains[name] = module.main
    # Flags of another program may follow; argparse would look for its own in them.
    end = given.index("--") if "--" in given else len(given)
    args = parser.parse_args(given[:end])
    args.flags = given[end + 1 :]
    try:
        return mains[args.command](args)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
