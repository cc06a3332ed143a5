"""The command line of either side: a table of commands, loaded when they are asked for.

A command is a module with ``add_arguments(parser)`` and ``main(args) -> int``. What
follows ``--`` is not parsed: it is in ``args.flags``. Here is also what every command
needs of its surroundings: proxies that can be used, output that any terminal takes.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module

from common.proxies import usable_proxies

Main = Callable[[argparse.Namespace], int]


def run_command(
    prog: str,
    description: str | None,
    commands: Mapping[str, tuple[str, str]],
    argv: list[str] | None = None,
) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    prog, description : str
        Of the program, for its help.
    commands : mapping of str to (module, text)
        Command names, the module behind each and its line in the help.
    argv : list of str, optional
        The arguments; those of the process by default.
    """
    _prepare_surroundings()
    given = sys.argv[1:] if argv is None else argv
    # Flags of another program may follow; argparse would look for its own in them.
    end = given.index("--") if "--" in given else len(given)
    try:
        parser, mains = _parser(prog, description, commands, given[:1])
        args = parser.parse_args(given[:end])
        args.flags = given[end + 1 :]
        code = mains[args.command](args)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _parser(
    prog: str,
    description: str | None,
    commands: Mapping[str, tuple[str, str]],
    asked: list[str],
) -> tuple[argparse.ArgumentParser, dict[str, Main]]:
    parser = argparse.ArgumentParser(prog=prog, description=description)
    subparsers = parser.add_subparsers(dest="command", required=True)
    mains: dict[str, Main] = {}
    for name, (module_name, text) in commands.items():
        command = subparsers.add_parser(name, help=text, description=text)
        if asked == [name]:
            module = import_module(module_name)
            module.add_arguments(command)
            mains[name] = module.main
    return parser, mains


def _prepare_surroundings() -> None:
    # A terminal in Latin-1 shows an escape for what it lacks; nothing is lost.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    env, notes = usable_proxies(os.environ)
    if env != dict(os.environ):
        os.environ.clear()
        os.environ.update(env)
    for note in notes:
        print(f"warning: {note}", file=sys.stderr)
