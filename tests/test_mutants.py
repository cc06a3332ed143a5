"""The list of mutants is in step with the sources; ``make mutants`` tries them."""

import pytest

from tests.mutants import MUTANTS, REPOSITORY, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_the_line_to_change_is_there_once(mutant: Mutant) -> None:
    assert (REPOSITORY / mutant.file).read_text().count(mutant.before) == 1
    assert (REPOSITORY / mutant.tests).is_file()
    assert mutant.before != mutant.after
