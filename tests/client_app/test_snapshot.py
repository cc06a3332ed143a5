"""The model a device keeps: whole, private, found again."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from client_app.__main__ import main
from client_app.snapshot import FILE, DeviceSource, save_snapshot
from client_app.store import DirectoryStore
from common.moe import MoEModel
from common.serving.servable import SourceError
from tests.common.serving.support import INPUTS, SPEC, images


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
        inputs=INPUTS,
    )
    return model


def test_what_was_kept_answers_as_what_was_trained(tmp_path: Path) -> None:
    model = keep(tmp_path, server_round=5).eval()
    servable = DeviceSource(tmp_path).load()
    assert (servable.run, servable.server_round) == ("r", 5)
    assert servable.experts == (0, 3)
    assert servable.inputs == INPUTS
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
    assert [p.name for p in (tmp_path / "r" / "pi_0").iterdir()] == [FILE]
    keep(tmp_path, run="later", server_round=1)
    os.utime(tmp_path / "later" / "pi_0" / FILE, ns=(2**61, 2**61))
    assert source.load().run == "later"
    assert DeviceSource(tmp_path, run="r").load().server_round == 2


def test_several_clients_need_a_choice(tmp_path: Path) -> None:
    for client in ("a", "b"):
        keep(tmp_path, client=client)
    with pytest.raises(SourceError, match=r"2 clients: choose one .* \(a, b\)"):
        DeviceSource(tmp_path).load()
    assert DeviceSource(tmp_path, client="b").load().run == "r"


def test_nothing_there_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no trained model at"):
        DeviceSource(tmp_path).version()
    keep(tmp_path)
    path = tmp_path / "r" / "pi_0" / FILE
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
