"""The model a device keeps: whole, private, found again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save

from client_app.__main__ import main
from client_app.kept.snapshot import FILE, DeviceSource, save_snapshot
from client_app.kept.store import DirectoryStore, client_folder
from common.data import HashedPieces
from common.errors import SourceError
from common.moe import MoEModel
from common.task import TextTask
from tests.common.moe.support import text_spec
from tests.common.serving.support import NAMES, SPEC, TASK, images
from tests.conftest import REPOSITORY


def keep(
    folder: Path, *, run: str = "r", client: str = "pi/0", server_round: int = 1
) -> MoEModel:
    model = SPEC.build([0, 3], seed=server_round)
    save_snapshot(
        DirectoryStore(folder, run, client),
        client,
        run=run,
        server_round=server_round,
        model=model,
        task=TASK,
    )
    return model


def test_what_was_kept_answers_as_what_was_trained(tmp_path: Path) -> None:
    model = keep(tmp_path, server_round=5).eval()
    servable = DeviceSource(tmp_path).load()
    assert (servable.run, servable.server_round) == ("r", 5)
    assert servable.experts == (0, 3)
    assert servable.task == TASK
    x = images(6)
    with torch.inference_mode():
        prepared = torch.from_numpy(x[:, None].astype(np.float32) / 16)
        expected = model(prepared).logits.softmax(1).numpy()
    np.testing.assert_array_equal(servable.predict(x).probabilities, expected)


def test_one_file_a_run_and_client_and_the_newest_is_found(tmp_path: Path) -> None:
    source = DeviceSource(tmp_path)
    keep(tmp_path, server_round=1)
    first = source.version()
    assert source.version() == first
    keep(tmp_path, server_round=2)
    assert source.version() != first
    assert source.load().server_round == 2
    assert [p.name for p in client_folder(tmp_path, "r", "pi/0").iterdir()] == [FILE]
    keep(tmp_path, run="later", server_round=1)
    os.utime(client_folder(tmp_path, "later", "pi/0") / FILE, ns=(2**61, 2**61))
    assert source.load().run == "later"
    assert DeviceSource(tmp_path, run="r").load().server_round == 2


def test_several_clients_need_a_choice(tmp_path: Path) -> None:
    for client in ("a", "b"):
        keep(tmp_path, client=client)
    with pytest.raises(SourceError, match=r"2 clients: choose one .* \(a, b\)"):
        DeviceSource(tmp_path).load()
    assert DeviceSource(tmp_path, client="b").load().run == "r"
    # Any other name, too, and what its folder is called.
    keep(tmp_path, client="B")
    for name in ("B", client_folder("", "r", "B").name):
        assert DeviceSource(tmp_path, client=name).load().run == "r"
    for name in ("*", "..", "a/../b", "/"):
        with pytest.raises(SourceError, match="no trained model at"):
            DeviceSource(tmp_path, client=name).load()


def test_nothing_there_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no trained model at"):
        DeviceSource(tmp_path).version()
    keep(tmp_path)
    path = client_folder(tmp_path, "r", "pi/0") / FILE
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], whole[:-4], whole.replace(b"device-1", b"devi-")):
        path.write_bytes(damaged)
        with pytest.raises(SourceError, match="cannot be used"):
            DeviceSource(tmp_path).load()


def test_predicting_images_with_the_devices_own_gate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    keep(tmp_path / "state")
    (tmp_path / "images").mkdir()
    Image.new("L", (20, 20), 200).save(tmp_path / "images" / "seven.png")
    state = ["--state-dir", str(tmp_path / "state")]
    assert main(["predict", *state, "--input", str(tmp_path / "images")]) == 0
    [_, line] = capsys.readouterr().out.splitlines()
    name, _, _, expert = line.split()
    assert name == "seven.png"
    assert expert in ("0", "3")
    assert main(["predict", "--state-dir", "nowhere", "--input", "x.npz"]) == 2
    assert "error: no trained model at nowhere" in capsys.readouterr().err


def test_bad_files_are_named_and_the_others_are_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    keep(tmp_path / "state")
    given = ["predict", "--state-dir", str(tmp_path / "state"), "--input"]
    photos = tmp_path / "photos"
    for name in NAMES[:3]:
        (photos / name).mkdir(parents=True)
        Image.new("L", (8, 8), 200).save(photos / name / "a.png")
    (photos / "one" / "empty.jpg").write_bytes(b"")
    assert main([*given, str(photos)]) == 0
    out, err = capsys.readouterr()
    header, *lines = out.splitlines()
    assert header.split() == ["sample", "class", "probability", "expert"]
    assert [line.split()[0] for line in lines] == [
        "one/a.png",
        "two/a.png",
        "zero/a.png",
    ]
    assert {line.split()[1] for line in lines} <= set(NAMES)
    assert "skipped one/empty.jpg: the file is empty" in err
    right = sum(line.split("/")[0] == line.split()[1] for line in lines)
    assert f"accuracy {right / 3:.4f} of 3 samples whose class is known" in err
    assert "3 samples answered by r, round 1, 1 skipped" in err

    output = tmp_path / "out.csv"
    assert main([*given, str(photos), "--output", str(output)]) == 0
    assert len(output.read_text().splitlines()) == 4
    for only_bad in (photos / "one" / "empty.jpg", tmp_path / "nothing"):
        assert main([*given, str(only_bad), "--output", str(tmp_path / "no.npz")]) == 2
    assert not (tmp_path / "no.npz").exists()


def test_numbers_of_another_scale_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(tmp_path / "state")
    given = ["predict", "--state-dir", str(tmp_path / "state")]
    np.savez(tmp_path / "x.npz", x=images(5) / 17)
    assert main([*given, "--input", str(tmp_path / "x.npz")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "the model takes images from 0 to 16; multiply by 16" in err
    np.savez(tmp_path / "x.npz", x=images(5) // 16)
    assert main([*given, "--input", str(tmp_path / "x.npz")]) == 0
    assert "warning: the input never exceeds 1" in capsys.readouterr().err
    for ask in ([], ["--text", "a", "--input", "x"]):
        assert main([*given, *ask]) == 2
        assert "give either --input PATH or --text TEXT" in capsys.readouterr().err
    assert main([*given, "--text", "a"]) == 2
    assert "the model takes no texts" in capsys.readouterr().err


def test_a_text_model_makes_the_token_ids_it_was_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = TextTask(classes=("bad", "good"), length=6, vocabulary=40)
    spec = text_spec(input_shape=(6,), num_classes=2)
    save_snapshot(
        DirectoryStore(tmp_path, "r", "c"),
        "c",
        run="r",
        server_round=1,
        model=spec.build([0, 3, 4], seed=1),
        task=task,
    )
    texts = ["good great thing", "bad"]
    servable = DeviceSource(tmp_path).load()
    ids = HashedPieces(length=6, vocabulary=40).encode(texts)
    np.testing.assert_array_equal(servable.encode(texts), ids)
    asked = [arg for text in texts for arg in ("--text", text)]
    assert main(["predict", "--state-dir", str(tmp_path), *asked]) == 0
    found = servable.predict(ids)
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[-3] for line in lines] == servable.names_of(found.classes)


def test_a_model_kept_before_there_were_tasks_answers_alike(tmp_path: Path) -> None:
    keep(tmp_path)
    x = images(6)
    expected = DeviceSource(tmp_path).load().predict(x)
    path = client_folder(tmp_path, "r", "pi/0") / FILE
    with safe_open(path, framework="numpy") as file:
        facts = json.loads(file.metadata()["facts"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del facts["task"]
    facts["inputs"] = {
        "input_shape": [1, 8, 8],
        "num_classes": 10,
        "kind": "float32",
        "normaliser": {"scale": 16.0, "mean": [0.0], "std": [1.0]},
        "vocabulary": 0,
    }
    metadata = {"format": "expertfleet-device-1", "facts": json.dumps(facts)}
    path.write_bytes(save(tensors, metadata=metadata))
    servable = DeviceSource(tmp_path).load()
    np.testing.assert_array_equal(
        servable.predict(x).probabilities, expected.probabilities
    )
    assert servable.task.classes == tuple("0123456789")


def test_predicting_from_arrays_reads_no_image_library(tmp_path: Path) -> None:
    keep(tmp_path)
    np.savez(tmp_path / "x.npz", x=images(3))
    code = (
        "import sys; from client_app.__main__ import main; "
        f"code = main(['predict', '--state-dir', {str(tmp_path)!r}, '--input', "
        f"{str(tmp_path / 'x.npz')!r}]); "
        "heavy = {'PIL', 'pyarrow', 'pandas', 'datasets', 'transformers'}; "
        "sys.exit(code or sorted(heavy & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
