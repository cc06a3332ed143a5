"""Faults made on purpose: each is one changed line, and the suite has to notice it.

``python -m tests.mutants`` (``make mutants``) changes one line in a copy of the
repository, runs the tests that should fail, and says which mutants survive. A fault
that a review found and no test did gets a mutant here beside its test.

What is in step with the sources (every line to change is there, once) is checked by
``tests/test_mutants.py`` in the ordinary suite.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One fault.

    Attributes
    ----------
    what : str
        What is wrong with the code then.
    file : str
        Which file has the line.
    before, after : str
        Text of the line that is changed, unique in the file, and what it becomes.
    tests : str
        The file of the tests that have to fail.
    """

    what: str
    file: str
    before: str
    after: str
    tests: str


MUTANTS = (
    Mutant(
        what="the certificate accepts anything within 1e6 units",
        file="server_app/assignment/flow/certified.py",
        before="optimal = problem.value(matrix) - missed == bound",
        after="optimal = abs(problem.value(matrix) - missed - bound) < 10**6",
        tests="tests/server_app/assignment/flow/test_certified.py",
    ),
    Mutant(
        what="the band's upper edge is not rounded",
        file="server_app/load.py",
        before="upper = np.ceil(np.round((1 + tolerance) * target, 9))",
        after="upper = np.ceil((1 + tolerance) * target)",
        tests="tests/server_app/test_load.py",
    ),
    Mutant(
        what="the band's lower edge is not rounded",
        file="server_app/load.py",
        before="np.floor(np.round((1 - tolerance) * target, 9))",
        after="np.floor((1 - tolerance) * target)",
        tests="tests/server_app/test_load.py",
    ),
    Mutant(
        what="the deficit's limit is 1 instead of the participants",
        file="server_app/strategies/flex_moe.py",
        before="limit=self._participants",
        after="limit=1",
        tests="tests/server_app/strategies/test_flex_moe.py",
    ),
    Mutant(
        what="FLEX-MoE weighs experts by the client's samples, not by usage",
        file="server_app/strategies/flex_moe.py",
        before="weight = reply.samples_of(expert)",
        after="weight = reply.report.num_examples",
        tests="tests/server_app/strategies/test_two_rounds_by_hand.py",
    ),
    Mutant(
        what="the gate-balance loss is never applied",
        file="client_app/training.py",
        before="if self.gate_balance and len(model.held) > len(model.layers):",
        after="if self.gate_balance and len(model.held) > 10**6:",
        tests="tests/client_app/test_training.py",
    ),
    Mutant(
        what="a private head is returned with the rest",
        file="common/wire/order.py",
        before="if part not in self.private_parts]",
        after="if part]",
        tests="tests/client_app/local/test_plain.py",
    ),
    Mutant(
        what="Ditto pulls to what the client made of w, not to what it received",
        file="client_app/local/pulled.py",
        before="anchor=received)",
        after="anchor=None)",
        tests="tests/client_app/local/test_pulled.py",
    ),
    Mutant(
        what="APFL trains its own model with all of the gradient, not its share",
        file="client_app/local/mixture.py",
        before="v.grad.mul_(alpha)",
        after="v.grad.mul_(1.0)",
        tests="tests/client_app/local/test_mixture.py",
    ),
    Mutant(
        what="FedRep trains the head together with the body",
        file="client_app/local/alternating.py",
        before="result = given.fit(shared)",
        after="result = given.fit()",
        tests="tests/client_app/local/test_alternating.py",
    ),
    Mutant(
        what="running statistics of batch norms are sent",
        file="common/moe/apart.py",
        before="for tensor in (*module.parameters(), *module.buffers())",
        after="for tensor in (*module.parameters(),)",
        tests="tests/common/moe/test_apart.py",
    ),
    Mutant(
        what="the upload budget ignores upload-dtype",
        file="server_app/fleet/budget.py",
        before="upload(spec, self._settings.wire.upload_dtype, self._private)",
        after="upload(spec, private=self._private)",
        tests="tests/server_app/fleet/test_budget.py",
    ),
    Mutant(
        what="what a client kept of the resumed round itself stays",
        file="client_app/kept/private.py",
        before="if later >= server_round:",
        after="if later > server_round:",
        tests="tests/client_app/kept/test_private.py",
    ),
    Mutant(
        what="the server averages its models without a ramp",
        file="server_app/merging/means.py",
        before="self.rounds / (self.rounds + 1)",
        after="1.0",
        tests="tests/server_app/merging/test_server_average.py",
    ),
    Mutant(
        what="flex-moe-plus rotates one round longer",
        file="server_app/strategies/flex_moe_plus.py",
        before="self.rotates_until = int(rotation * rounds) if",
        after="self.rotates_until = 1 + int(rotation * rounds) if",
        tests="tests/server_app/strategies/test_flex_moe_plus.py",
    ),
)


def copy_of_repository(target: Path) -> None:
    """Copy what git tracks, as it is in the working tree."""
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True
    ).stdout.decode()
    for name in filter(None, names.split("\0")):
        if (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name)


def tests_pass(tree: Path, *tests: str) -> bool:
    """Run files of tests in a tree.

    Raises
    ------
    RuntimeError
        If pytest could not even run them.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *tests], cwd=tree, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{tests}: pytest ended with {done.returncode}")
    return done.returncode == 0


def main() -> int:
    """Try every mutant; return 1 if one survives."""
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_of_repository(tree)
        if not tests_pass(tree, *sorted({mutant.tests for mutant in MUTANTS})):
            print("the tests fail without any mutant", file=sys.stderr)
            return 1
        for mutant in MUTANTS:
            path = tree / mutant.file
            source = path.read_text()
            path.write_text(source.replace(mutant.before, mutant.after))
            survived = tests_pass(tree, mutant.tests)
            path.write_text(source)
            print(f"{'SURVIVES' if survived else 'killed'}: {mutant.what}", flush=True)
            if survived:
                survivors.append(mutant)
    print(f"{len(MUTANTS) - len(survivors)} of {len(MUTANTS)} mutants killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
