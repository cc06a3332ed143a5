"""Every code block of README and docs runs, or says what runs it or why nothing can."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.docs.desk import Desk, commands_of, of_a_script, plain
from tests.docs.pages import PAGES, Block, blocks_of

EVERY = [block for page in PAGES for block in blocks_of(page)]
RUN_HERE = ("sh", "python", "toml")
WITH_BLOCKS = [page for page in PAGES if blocks_of(page)]
LONG = ("after-training.md", "privacy.md", "sweeps.md")
"""Pages whose blocks take more than ten seconds."""


def name_of(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def marked(page: Path) -> Any:
    marks = [pytest.mark.slow] if page.name in LONG else []
    return pytest.param(page, id=name_of(page), marks=marks)


@pytest.mark.parametrize("page", [marked(page) for page in WITH_BLOCKS])
def test_blocks_run(page: Path, tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    try:
        for block in blocks_of(page):
            if block.first:
                desk.shell(block.first)
            if block.elsewhere or block.why_not:
                continue
            try:
                run_block(desk, block)
            except BaseException as error:
                error.add_note(block.where)
                raise
    finally:
        desk.close()


def run_block(desk: Desk, block: Block) -> None:
    assert block.language in RUN_HERE, f"{block.where}: {block.language}"
    if block.language == "sh":
        desk.shell(block.text)
    elif block.language == "python":
        desk.python(block.text)
    else:
        tomllib.loads(block.text)


def test_who_runs_a_block_is_there_and_names_its_page() -> None:
    for block in EVERY:
        if block.elsewhere:
            runner = REPOSITORY / block.elsewhere
            assert runner.is_file(), block.where
            assert block.page.name in runner.read_text(), block.where


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    left = [block for block in EVERY if block.why_not]
    assert all(len(block.why_not.split()) > 2 for block in left)
    assert len(left) <= len(EVERY) / 4, [block.where for block in left]


def test_a_command_goes_on_over_lines_and_quotes() -> None:
    text = "one 'a\n  b' \\\n  c # said\n# nothing\ntwo | three\n"
    first, second = commands_of(text)
    assert first == "one 'a\n  b'   c # said"
    assert plain(first) and not plain(second)
    assert of_a_script("for x in 1 2; do") and not of_a_script(first)


def test_marks_of_a_block_are_read(tmp_path: Path) -> None:
    page = REPOSITORY / "docs" / "none.md"
    marks = "<!-- first: true > x\ntrue -->\n<!-- not run: needs a board -->\n"
    text = f"x\n\n{marks}```sh\nfalse\n```\n"

    class Page(type(page)):  # type: ignore[misc]
        def read_text(self, *_: object, **__: object) -> str:
            return text

    [block] = blocks_of(Page(page))
    assert (block.language, block.text) == ("sh", "false\n")
    assert (block.first, block.why_not) == ("true > x\ntrue", "needs a board")
    assert block.where == "docs/none.md:6"
