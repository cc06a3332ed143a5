"""The command line: tables of commands, each loaded when it is asked for.

A command is a module with a function ``command``, whose annotated parameters are its
options; or with several, as ``app`` (typer) or as a table ``COMMANDS`` of its own. What
follows ``--`` is not parsed: :func:`flags_of` has it. Here is also what every command
needs of its surroundings: proxies that can be used, output that any terminal takes.
"""

import inspect
import io
import logging
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module, metadata
from typing import Annotated, Any

try:
    import click
    import typer
    from typer._completion_classes import completion_init
    from typer.core import TyperGroup
except ModuleNotFoundError as error:  # a Python without any of the app's packages
    print(
        f"error: {error.name} is missing for {sys.executable}: activate the "
        "environment that expertfleet is installed in, or call its program there",
        file=sys.stderr,
    )
    sys.exit(2)

from common.proxies import usable_proxies

Table = Mapping[str, tuple[str, str]]
"""Of each command its name, its module and its line in the help."""

USAGE = 2
"""Exit code for what cannot be asked for."""

_FLAGS = "common.commands.flags"

_OURS = ("common", "server_app", "client_app", "expertfleet")
_EXTRAS = {
    "dp_accounting": "privacy",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "ortools": "server",
    "pandas": "notebook",
    "ray": "simulation",
}
"""Which extra of the package has a module that is no part of every installation."""


class Commands(TyperGroup):
    """Commands that are named without being loaded.

    Attributes
    ----------
    table : mapping
    """

    table: Table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return their names, in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return what a list of commands shows of one."""
        if cmd_name not in self.table:
            return None
        return click.Command(cmd_name, help=self.table[cmd_name][1])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Load the command that is asked for."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, found and self._loaded(str(name)), rest

    def _loaded(self, name: str) -> click.Command:
        module, text = self.table[name]
        loaded = import_module(module)
        if (table := getattr(loaded, "COMMANDS", None)) is not None:
            return group_of(table, text)
        if isinstance(app := getattr(loaded, "app", None), typer.Typer):
            return typer.main.get_command(app)
        alone = typer.Typer(add_completion=False)
        alone.command(name, help=text)(loaded.command)
        return typer.main.get_command(alone)


def group_of(
    table: Table,
    text: str | None,
    options: Callable[..., None] | None = None,
    *,
    completes: bool = False,
) -> Commands:
    """Return a group of commands.

    Parameters
    ----------
    table : mapping
    text : str or None
        Its help.
    options : callable, optional
        Takes the options that stand before the command's name.
    completes : bool
        Whether it has ``--install-completion`` and ``--show-completion``.
    """
    app = typer.Typer(cls=Commands, add_completion=completes)
    app.callback(help=text)(options or _no_options)
    group = typer.main.get_command(app)
    assert isinstance(group, Commands)
    group.table = table
    return group


def _no_options() -> None:
    pass


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"expertfleet {metadata.version('expertfleet')}")
        raise typer.Exit


def _common_options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Show the version.",
        ),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show details.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show warnings and errors alone.")
    ] = False,
) -> None:
    if verbose and quiet:
        raise click.UsageError("--verbose or --quiet, not both")
    if verbose or quiet:
        logger = logging.getLogger("flwr.expertfleet")
        # Who calls a command from Python has the level back that was set before.
        context.call_on_close(partial(logger.setLevel, logger.level))
        logger.setLevel(logging.DEBUG if verbose else logging.WARNING)


def flags_of(context: click.Context) -> list[str]:
    """Return what followed ``--``: flags of another program."""
    return list(context.meta.get(_FLAGS, []))


Command = Callable[..., int]


def takes(shared: Callable[..., Any]) -> Callable[[Command], Command]:
    """Let a command take the options of a function, beside its own, in ``**options``.

    Parameters
    ----------
    shared : callable
        Its parameters with a default become options.
    """

    def joined(command: Command) -> Command:
        own = inspect.signature(command)
        kept = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        others = [
            p.replace(kind=p.KEYWORD_ONLY)
            for p in inspect.signature(shared).parameters.values()
            if p.default is not p.empty
        ]
        every = [p.replace(kind=p.KEYWORD_ONLY) for p in kept] + others

        def joint(**given: Any) -> int:
            return command(**given)

        joint.__signature__ = own.replace(parameters=every)  # type: ignore[attr-defined]
        joint.__annotations__ = {p.name: p.annotation for p in every}
        joint.__doc__ = command.__doc__
        return joint

    return joined


def run_command(
    prog: str, description: str | None, commands: Table, argv: list[str] | None = None
) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    prog, description : str
        Of the program, for its help.
    commands : mapping of str to (module, text)
    argv : list of str, optional
        The arguments; those of the process by default.
    """
    _prepare_surroundings()
    given = sys.argv[1:] if argv is None else argv
    # Flags of another program may follow; ours would be looked for among them.
    end = given.index("--") if "--" in given else len(given)
    # What is called by Python is no word that a shell could complete.
    group = group_of(commands, description, _common_options, completes=" " not in prog)
    try:
        if argv is None and _completing(prog):
            completion_init()
            group.main(prog_name=prog)
        with group.make_context(prog, given[:end]) as context:
            context.meta[_FLAGS] = given[end + 1 :]
            code = int(group.invoke(context) or 0)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return USAGE
    except click.ClickException as error:
        where = getattr(error, "ctx", None)
        path = where.command_path if where else prog
        said = " ".join(error.format_message().split())
        print(f"error: {said} ({path} --help)", file=sys.stderr)
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing in _OURS:  # a fault of ours: show where
            raise
        extra = f"[{_EXTRAS[missing]}]" if missing in _EXTRAS else ""
        print(
            f"error: {missing} is missing: pip install 'expertfleet{extra}'",
            file=sys.stderr,
        )
        return USAGE
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _completing(prog: str) -> bool:
    return f"_{prog.replace('-', '_').upper()}_COMPLETE" in os.environ


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
