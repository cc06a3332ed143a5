"""What is said of a Ray cluster that a run cannot have, without starting one."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import pytest
from ray._private.utils import check_version_info
from ray.exceptions import (
    NodeDiedError,
    RuntimeEnvSetupError,
    TaskUnschedulableError,
)

from server_app.launcher import cluster, machines
from server_app.launcher.cluster import (
    ClusterError,
    Needs,
    check_cluster,
    cluster_environment,
    code_archive,
    read_by_clients,
)
from server_app.launcher.machines import digest
from server_app.launcher.run import run_simulation
from tests.conftest import REPOSITORY
from tests.ports import free_port


@pytest.mark.parametrize(
    "address", ["", "auto", "ray://host:10001", "host", "host:0", "host:99999", "h:1 x"]
)
def test_an_address_that_is_none_is_one_line(address: str, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="is not allowed: HOST:PORT"):
        check_cluster(address, tmp_path / "code.zip", Needs())


def test_nobody_at_the_address_ends_a_run_with_one_line_and_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    address = f"127.0.0.1:{free_port()}"
    assert run_simulation(REPOSITORY, 2, client_cpus=4096, ray_address=address) == 2
    assert capsys.readouterr().err == (
        f"error: ray-address = '{address}': no Ray cluster answers there "
        "(Connection refused)\n"
    )


def test_somebody_else_at_the_address_is_told_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "JOIN", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        ZipFile(tmp_path / "code.zip", "w").close()
        with pytest.raises(ClusterError) as caught:
            check_cluster(address, tmp_path / "code.zip", Needs())
    assert "what answers there is no Ray cluster" in str(caught.value)


def test_other_versions_are_told_in_one_line() -> None:
    with pytest.raises(RuntimeError) as caught:  # Ray's own words
        cluster_runs = {"ray_version": "2.0.0", "python_version": "3.9.1"}
        check_version_info(cluster_runs, "x")  # type: ignore[no-untyped-call]
    told = cluster._told(str(caught.value))
    assert told.startswith("the cluster runs Ray 2.0.0 and Python 3.9.1, this machine ")
    assert told.endswith("they have to be equal")
    assert "\n" not in told


def test_why_our_code_could_not_be_set_up_is_told() -> None:
    said = str(RuntimeEnvSetupError("Traceback:\n  File x\nOSError: no space left"))
    assert cluster._told(said) == (
        "Failed to set up runtime environment. OSError: no space left"
    )
    assert cluster._told("one\ntwo") == "one"
    assert cluster._told("") == "no reason given"


class FakeRay:
    """Machines by name, with what each asking of them gives."""

    def __init__(self, answers: dict[str, list[Any]]) -> None:
        self.answers = answers

    def remote(self, **_: Any) -> Callable[[Any], "FakeRay"]:
        return lambda task: self

    def options(self, scheduling_strategy: Any) -> SimpleNamespace:
        return SimpleNamespace(remote=lambda *what: scheduling_strategy.node_id)

    def get(self, asked: str) -> Any:
        answer = self.answers[asked].pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_who_is_gone_gives_no_answer() -> None:
    here, off, dead = "a" * 56, "b" * 56, "c" * 56
    answers: dict[str, list[Any]] = {
        here: [{"paths": {}}],
        off: [TaskUnschedulableError("off")],
        dead: [NodeDiedError("dead")],  # type: ignore[no-untyped-call]
    }
    found = machines._answers(FakeRay(answers), [here, off, dead], [], [])
    assert found == [{"paths": {}}, None, None]

    full = FakeRay({here: [RuntimeEnvSetupError("full")]})
    with pytest.raises(RuntimeEnvSetupError, match="full"):
        machines._answers(full, [here], [], [])


def test_no_two_jobs_share_what_ray_removes_with_the_first(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    sent = [code_archive(REPOSITORY, tmp_path / place) for place in ("one", "two")]
    assert digest(str(sent[0])) != digest(str(sent[1]))


Answer = dict[str, Any]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda there: there["paths"].update(data=None), "data-dir: data is missing"),
        (lambda there: there["paths"].update(data="b"), "data-dir: data differs"),
        (lambda there: there["packages"].update(torch="2.0"), "has torch 2.0, this"),
        (lambda there: there["paths"].update({"s/mark": None}), "'s' is not shared"),
    ],
)
def test_a_machine_that_has_not_what_this_one_has_is_named(
    change: Callable[[Answer], None], said: str
) -> None:
    def answer() -> Answer:
        paths = {"data": "a", "s/mark": "c"}
        return {"paths": paths, "packages": {"torch": "2.1"}}

    needs = Needs(same={"data-dir": [Path("data")]}, shared={"state-dir": Path("s")})
    marks = {"state-dir": Path("s/mark")}
    there = answer()
    cluster._compare("machine m", answer(), there, needs, marks)
    change(there)
    with pytest.raises(ClusterError) as caught:
        cluster._compare("machine m", answer(), there, needs, marks)
    assert said in str(caught.value)
    assert "machine m" in str(caught.value)


def test_data_are_told_apart_by_content_and_folders_by_names_and_sizes(
    tmp_path: Path,
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, text in ((one, "abc"), (two, "abd")):
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "file").write_text(text)
    assert digest(str(one / "sub" / "file")) != digest(str(two / "sub" / "file"))
    assert digest(str(one)) == digest(str(two))
    (two / "sub" / "file").write_text("longer")
    assert digest(str(one)) != digest(str(two))
    assert digest(str(tmp_path / "nothing")) is None


def test_what_clients_read_is_their_data_set_or_the_whole_folder(
    tmp_path: Path,
) -> None:
    (tmp_path / "blobs.npz").touch()
    (tmp_path / "else.npz").touch()
    config = {"data-dir": str(tmp_path), "dataset": "blobs", "partition": "iid"}
    assert read_by_clients(config) == {"data-dir": [tmp_path / "blobs.npz"]}
    whole = {"data-dir": [tmp_path]}
    assert read_by_clients({**config, "partition": "folders"}) == whole
    assert read_by_clients({**config, "task": "task.toml"}) == whole
    assert read_by_clients({**config, "dataset": "digits"}) == {}
    base = {**config, "pretrained": str(tmp_path)}
    assert read_by_clients(base)["pretrained"] == [tmp_path]
    # An id of the hub is no place on disk.
    assert "pretrained" not in read_by_clients({**config, "pretrained": "some/model"})


def test_a_job_of_ray_is_given_the_app_and_what_is_named_beside_it(
    tmp_path: Path,
) -> None:
    archive = code_archive(REPOSITORY, tmp_path, ["benchmarks"])
    names = ZipFile(archive).namelist()
    assert {"pyproject.toml", "client_app/app.py", "common/code_hash.py"} <= {*names}
    assert "benchmarks/study/one_cell.py" in names
    assert not any(name.startswith((".venv", "tests")) for name in names)
    env = cluster_environment("h:1", archive)
    job = json.loads(env["RAY_JOB_CONFIG_JSON_ENV_VAR"])
    assert job == {"runtime_env": {"working_dir": str(archive)}}
    assert env["RAY_ADDRESS"] == "h:1"
