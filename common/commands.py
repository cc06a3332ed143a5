"""The command line of either side: a table of commands, loaded when they are asked for.

A command is a module with ``add_arguments(parser)`` and ``main(args) -> int``. What
follows ``--`` is not parsed: it is in ``args.flags``.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def run_command(
    prog: str,
    description: str | None,
    commands: Mapping[str, tuple[str, str]],
    argv: list[str] | None = None,
) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    prog : str
        How the program is called, for its help.
    description : str or None
    commands : mapping of str to (module, text)
        Command names, the module behind each and its line in the help.
    argv : list of str, optional
        The arguments; those of the process by default.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description)
    subparsers = parser.add_subparsers(dest="command", required=True)
    mains: dict[str, Callable[[argparse.Namespace], int]] = {}
    given = sys.argv[1:] if argv is None else argv
    for name, (module_name, text) in commands.items():
        command = subparsers.add_parser(name, help=text, description=text)
        if given[:1] == [name]:
            module = import_module(module_name)
            module.add_arguments(command)
            mains[name] = module.main
    # Flags of another program may follow; argparse would look for its own in them.
    end = given.index("--") if "--" in given else len(given)
    args = parser.parse_args(given[:end])
    args.flags = given[end + 1 :]
    try:
        code = mains[args.command](args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
