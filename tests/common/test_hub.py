"""Checkpoints from a directory: what is read, and one line for what cannot be."""

import builtins
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.data import HashedPieces
from common.errors import SettingsError
from common.hub import (
    SHIFT,
    _read,
    empty_model,
    fingerprint,
    has_tokeniser,
    load_weights,
    read_checkpoint,
    save_checkpoint,
    tokeniser_of,
)
from common.moe.vectors import pack, unpack_into
from common.settings import Settings
from tests.checkpoints import BLOCKS, POSITIONS, WIDTH, WORDS, save


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_checkpoint_is_read_saved_and_rebuilt(kind: str, tmp_path: Path) -> None:
    name = save(kind, tmp_path / "a")
    found = read_checkpoint(name)
    assert (found.layers, found.width, found.positions) == (BLOCKS, WIDTH, POSITIONS)
    assert found.words == len(WORDS)
    weights = pack(load_weights(name))
    empty = empty_model(found.config)
    unpack_into(empty, weights)
    assert np.array_equal(pack(empty), weights)
    save_checkpoint(name, empty, empty.state_dict(), tmp_path / "b")
    again = read_checkpoint(str(tmp_path / "b"))
    assert again.config == found.config
    assert np.array_equal(pack(load_weights(again.name)), weights)
    assert fingerprint(again) == fingerprint(found)


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("bert", "Very good.", ["[CLS]", "very", "good", ".", "[SEP]"]),
        ("bert", "good " * 9, ["[CLS]", *["good"] * 4, "[SEP]"]),
        ("bert", "", ["[CLS]", "[SEP]"]),
        ("gpt2", "Very zzz.", ["very", "[UNK]", "."]),
        ("gpt2", "", ["[SEP]"]),
        ("gpt2", "bad \ud83d", ["bad", "[UNK]"]),
    ],
)
def test_tokens_are_the_checkpoints_own_plus_one(
    kind: str, text: str, words: list[str], tmp_path: Path
) -> None:
    tokeniser = tokeniser_of(read_checkpoint(save(kind, tmp_path)), 6)
    assert (tokeniser.length, tokeniser.vocabulary) == (6, len(WORDS) + SHIFT)
    [ids] = tokeniser.encode([text])
    expected = [SHIFT + WORDS.index(word) for word in words]
    assert ids.tolist() == expected + [0] * (6 - len(words))


def test_without_a_tokeniser_pieces_are_hashed(tmp_path: Path) -> None:
    name = save("bert", tmp_path, tokeniser=False)
    assert not has_tokeniser(name)
    tokeniser = tokeniser_of(read_checkpoint(name), 5)
    assert tokeniser == HashedPieces(length=5, vocabulary=len(WORDS) + SHIFT)


def test_another_tokeniser_is_another_fingerprint(tmp_path: Path) -> None:
    with_words = save("bert", tmp_path / "a")
    without = save("bert", tmp_path / "b", tokeniser=False)
    other_words = save("gpt2", tmp_path / "c")
    found = {
        fingerprint(read_checkpoint(n)) for n in (with_words, without, other_words)
    }
    assert len(found) == 3


def test_what_cannot_be_read_is_told_in_one_line(tmp_path: Path) -> None:
    def refused(name: str) -> str:
        with pytest.raises(SettingsError) as error:
            load_weights(read_checkpoint(name).name)
        assert "\n" not in str(error.value) and repr(name) in str(error.value)
        return str(error.value)

    assert "does not exist" in refused(str(tmp_path / "nowhere"))
    assert "has no config.json" in refused(str(tmp_path))
    name = save("bert", tmp_path / "a")
    (tmp_path / "a" / "model.safetensors").unlink()
    assert "cannot be read" in refused(name)
    strange = tmp_path / "b"
    strange.mkdir()
    (strange / "config.json").write_text(json.dumps({"model_type": "t5"}))
    assert "is a t5: expected one of bert, gpt2" in refused(str(strange))
    (strange / "config.json").write_text("{")
    _read.cache_clear()
    assert "cannot be read" in refused(str(strange))
    with pytest.raises(SettingsError, match=r"text-length = 13 .*: 1 to 12"):
        tokeniser_of(read_checkpoint(save("gpt2", tmp_path / "c")), 13)


def test_weights_that_lack_some(tmp_path: Path) -> None:
    name = save("bert", tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"num_hidden_layers": BLOCKS + 1}))
    with pytest.raises(SettingsError, match=r"has no weights for encoder\.layer\.3"):
        load_weights(name)


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = save("bert", tmp_path)
    real = builtins.__import__

    def missing(module: str, *args: Any, **kwargs: Any) -> Any:
        if module == "transformers":
            raise ImportError(module)
        return real(module, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.setitem(sys.modules, "transformers", None)
    _read.cache_clear()
    with pytest.raises(SettingsError, match=r"pip install 'expertfleet\[hf\]'"):
        read_checkpoint(name)


def test_settings_that_do_not_go_together() -> None:
    for config, told in (
        ({"backbone": "pretrained"}, "pretrained = '' is not allowed with backbone"),
        ({"pretrained": "bert-base-uncased"}, "it goes with backbone = 'pretrained'"),
        ({"backbone": "pretrained", "pretrained": "x", "freeze": "2"}, "always frozen"),
        ({"backbone": "cnn", "freeze": "2"}, "not allowed without pretrained"),
        ({"feature-cache": "much"}, "feature-cache = 'much'"),
    ):
        with pytest.raises(SettingsError, match=told):
            Settings.from_run_config(config)


def test_a_directory_whose_files_change_is_read_anew(tmp_path: Path) -> None:
    name = save("bert", tmp_path)
    first = read_checkpoint(name)
    assert read_checkpoint(name) is first
    assert has_tokeniser(name)
    path = tmp_path / "config.json"
    config = {**json.loads(path.read_text()), "max_position_embeddings": 9}
    path.write_text(json.dumps(config))
    assert read_checkpoint(name).positions == 9
    for file in tmp_path.glob("[tv]o*"):  # tokenizer.json, vocab.txt
        file.unlink()
    assert not has_tokeniser(name)


def test_code_that_comes_with_a_checkpoint_is_never_run_nor_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = save("bert", tmp_path)
    asked: list[object] = []
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")

    def ask(*text: object) -> str:
        asked.append(text)
        return "y"

    monkeypatch.setattr(builtins, "input", ask)
    path = tmp_path / "config.json"
    evil = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    config = {**json.loads(path.read_text()), "model_type": "evil", "auto_map": evil}
    path.write_text(json.dumps(config))
    with pytest.raises(SettingsError, match="cannot be read") as caught:
        read_checkpoint(name)
    assert "\n" not in str(caught.value)
    assert asked == [] and not (tmp_path / "ran").exists()
