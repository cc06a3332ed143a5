"""The code blocks of README and docs, and how they are run.

A block of ``sh`` is typed command by command, one of ``python`` is executed, one of
``toml`` is parsed; a block without a language is output. All blocks of a page run in
order in one new directory, where ``results/RUN`` is the newest run. A comment before a
block says what is special:

``<!-- first: COMMANDS -->``
    what has to be there that the reader has
``<!-- run by: tests/... -->``
    another test runs it, with more around it
``<!-- not run: WHY -->``
    it cannot run in a test of this kind
"""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY

PAGES = [
    REPOSITORY / "README.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    *sorted((REPOSITORY / "examples").glob("*/README.md")),
]

_BLOCK = re.compile(
    r"^(?P<marks>(?:[ ]*<!-- (?:first|run by|not run): (?:(?!-->).)*-->\n+)*)"
    r"(?P<indent>[ ]*)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```[ ]*$",
    re.S | re.M,
)
_MARK = re.compile(r"<!-- (first|run by|not run): ((?:(?!-->).)*?) ?-->", re.S)


@dataclass(frozen=True)
class Block:
    """One block of a page; ``first``, ``elsewhere`` and ``why_not`` are its marks."""

    page: Path
    line: int
    language: str
    text: str
    first: str = ""
    elsewhere: str = ""
    why_not: str = ""

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page that are code."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        if not match["language"]:
            continue
        marks = dict(_MARK.findall(match["marks"]))
        indent = re.compile(f"^{match['indent']}", re.M)
        found.append(
            Block(
                page=page,
                line=text.count("\n", 0, match.start("language")) + 1,
                language=match["language"],
                text=indent.sub("", match["text"]),
                first=marks.get("first", ""),
                elsewhere=" ".join(marks.get("run by", "").split()),
                why_not=" ".join(marks.get("not run", "").split()),
            )
        )
    return found
