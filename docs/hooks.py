"""What MkDocs does beside reading ``docs/``: pages made from the code and the checkout.

``settings.md`` and ``strategies.md`` are written here out of what the classes say of
themselves. Pages that lie elsewhere in the checkout, such as its README, are taken in
under a name, and any other file that a page links to is copied: the site needs no host
but its own. MkDocs calls ``on_files`` and ``on_page_markdown``.
"""

import inspect
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from common.settings import Settings
from server_app.commands.show_settings import allowed_by, default_of
from server_app.strategies import STRATEGIES, ExpertStrategy, find_strategy

ROOT = Path(__file__).resolve().parents[1]

TAKEN_IN = {
    "README.md": "index.md",
    "docker/README.md": "containers.md",
    "benchmarks/RESULTS.md": "results.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "examples/own_data/README.md": "example-own-data.md",
    "examples/own_parts/README.md": "example-own-parts.md",
}
"""Pages that are not in ``docs/``: path in the checkout to name in the site."""

_CAME_FROM = {name: path for path, name in TAKEN_IN.items()}
_LINK = re.compile(r"(\]\(|src=\"|srcset=\")([^)#\s\"]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are taken in, those that are made, and what pages link to."""
    for path, name in TAKEN_IN.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    files.append(File.generated(config, "settings.md", content=settings_page()))
    files.append(File.generated(config, "strategies.md", content=strategies_page()))
    for file in list(files.documentation_pages()):
        for _, target in _LINK.findall(file.content_string):
            copy = _in_site(file.src_uri, target)
            if copy and files.get_file_from_path(copy) is None:
                source = str(ROOT / copy.removeprefix("checkout/"))
                files.append(File.generated(config, copy, abs_src_path=source))
    return files


def on_page_markdown(
    markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Have links lead to where their files are in the site."""
    here = page.file.src_uri

    def moved(link: re.Match[str]) -> str:
        name = _in_site(here, link[2])
        if name is None:
            return link[0]
        return link[1] + posixpath.relpath(name, posixpath.dirname(here) or ".")

    return _LINK.sub(moved, markdown)


def _in_site(page: str, target: str) -> str | None:
    """Return where a file of the checkout that a page links to is in the site.

    None for another page of ``docs/``, an address, and for what is not there: MkDocs
    knows the first two, and warns of the third.
    """
    source = _CAME_FROM.get(page, f"docs/{page}")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if path in TAKEN_IN:
        return TAKEN_IN[path]
    if ":" in target or path.startswith("..") or not (ROOT / path).is_file():
        return None
    return (
        path.removeprefix("docs/") if path.startswith("docs/") else f"checkout/{path}"
    )


def settings_page() -> str:
    """Return the page of all settings, by section, from their classes."""
    return "\n".join(_settings_lines())


def _settings_lines() -> Iterator[str]:
    yield (
        "# Settings\n\nEvery setting, from the code. `expertfleet settings KEY` says "
        "the same in a terminal. A run takes them from `--run-config`, either as "
        "`'key=value key=value'` or as the name of a TOML file."
    )
    for section, holder in Settings.model_fields.items():
        kind = holder.annotation
        assert isinstance(kind, type)
        about = inspect.getdoc(kind) or ""
        yield f"\n## {section.capitalize()}\n\n{_linked(_prose(about))}"
        for name, field in kind.model_fields.items():
            key = name.replace("_", "-")
            allowed = ", ".join(allowed_by(field))
            text = re.sub(r"([<>*_|])", r"\\\1", str(field.description))
            yield (
                f"\n### `{key}` {{ #{key} }}\n\n{text}\n\n"
                f"Default `{default_of(field)}`" + (f"; {allowed}." if allowed else ".")
            )


def strategies_page() -> str:
    """Return the page of all strategies, from their classes."""
    return "\n".join(_strategies_lines())


def _strategies_lines() -> Iterator[str]:
    classes = {name: find_strategy(name) for name in sorted(STRATEGIES.built_in)}
    yield (
        "# Strategies\n\nEvery strategy, from the code: set `strategy` to its name, "
        "and what an algorithm alone has to be told in `strategy-options`, as in "
        '`strategy="fedprox" strategy-options="mu=0.1"`. '
        "[Methods](methods.md) has the equations, [which strategy]"
        "(when-a-mixture-pays.md) what was measured. Flower's own take the dense "
        'model: `strategy="flwr:FedAdam"`.\n\n'
        "Costs are those of one client in a round; [what each costs]"
        "(when-a-mixture-pays.md#what-each-costs) has numbers.\n\n"
        "| strategy | use when |\n|---|---|"
    )
    for name, found in classes.items():
        yield f"| [`{name}`](#{name}) | {found.use_when} |"
    for name, found in classes.items():
        yield from _strategy_lines(name, found)


def _strategy_lines(name: str, found: type[ExpertStrategy]) -> Iterator[str]:
    yield f"\n## `{name}` {{ #{name} }}\n"
    yield f"Use when {found.use_when}.\n"
    yield f"| sent to a client | {found.ships} |\n|---|---|"
    yield f"| stays with it | {found.private} |\n| costs | {found.cost} |\n"
    if found.no_predictor:
        yield f"The server does not predict: {found.no_predictor}.\n"
    if options := found.Options.model_fields:
        yield "| option | default | |\n|---|---|---|"
        for key, field in options.items():
            text = str(field.description).replace("|", "\\|")
            yield f"| `{key}` | `{default_of(field)}` | {text} |"
        yield ""
    about = inspect.getdoc(inspect.getmodule(found)) or ""
    yield _linked(_prose(about))


def _prose(docstring: str) -> str:
    """Return a docstring as Markdown: literals, and blocks after a double colon."""
    return docstring.replace("::\n", ":\n").replace("``", "`")


def _linked(text: str) -> str:
    """Return a text in which pages that it cites are links."""
    return re.sub(r"docs/([\w-]+\.md)", r"[\1](\1)", text)
