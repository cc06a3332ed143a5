"""Pretrained checkpoints: configuration, tokeniser and weights, by directory or hub id.

Only here (and in ``common.moe.pretrained``) is ``transformers`` imported, the optional
extra ``hf``, and only when ``backbone="pretrained"``. A device needs configuration and
tokeniser of the checkpoint, which are small; it may have the weights as well.

Token ids are those of the checkpoint plus one: 0 is padding here, and a word in many
checkpoints.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from common.data import HashedPieces, Tokeniser
from common.data.tokens import padded
from common.errors import SettingsError
from common.text import first_line

SHIFT = 1
"""Added to the ids of the checkpoint's own tokeniser."""

BLOCKS = {"bert": "encoder.layer", "gpt2": "h"}
"""Supported architectures, and the place of their blocks."""

TOKENISER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json")

_NO_CODE = {"trust_remote_code": False}
"""Unsaid, transformers asks on the terminal whether to run the code it finds."""

Files = tuple[tuple[str, int, int, int], ...]
"""Name, number, size and time of every file of a directory, sorted."""

_VOLATILE = ("transformers_version", "_name_or_path", "dtype", "torch_dtype")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What is known of a checkpoint without its weights.

    Attributes
    ----------
    name : str
        Directory or hub id.
    config : str
        The configuration as JSON, without what differs between two equal models.
    layers, width, heads : int
        Blocks, features, attention heads.
    words : int
        Ids its embedding knows.
    positions : int
        Tokens it can look at.
    """

    name: str
    config: str
    layers: int
    width: int
    heads: int
    words: int
    positions: int


def read_checkpoint(name: str) -> Checkpoint:
    """Read a checkpoint's configuration, once unless its files change.

    Raises
    ------
    SettingsError
        If the extra is missing, there is no such checkpoint, or it is none of an
        architecture of ``BLOCKS``.
    """
    return _read(name, _files_now(name))


def _files_now(name: str) -> Files:
    """Return what tells a directory's files from those it had before."""
    if not Path(name).is_dir():
        return ()
    stats = [(entry.name, entry.stat()) for entry in os.scandir(name)]
    return tuple(
        (file, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        for file, stat in sorted(stats, key=lambda pair: pair[0])
    )


@lru_cache(maxsize=4)
def _read(name: str, _files: object) -> Checkpoint:
    if is_path(name) and not Path(name, "config.json").is_file():
        missing = "has no config.json" if Path(name).is_dir() else "does not exist"
        raise SettingsError(
            f"pretrained = {name!r} {missing}: expected the directory of a checkpoint, "
            "as save_pretrained writes it, or an id of the hub"
        )
    try:
        config = transformers().AutoConfig.from_pretrained(name, **_NO_CODE)
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(name, error) from None
    if config.model_type not in BLOCKS:
        raise SettingsError(
            f"pretrained = {name!r} is a {config.model_type}: expected one of "
            f"{', '.join(sorted(BLOCKS))}"
        )
    fields = {k: v for k, v in config.to_diff_dict().items() if k not in _VOLATILE}
    return Checkpoint(
        name=name,
        config=json.dumps(fields, sort_keys=True),
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        words=config.vocab_size,
        positions=config.max_position_embeddings,
    )


def load_weights(name: str, *, local: bool = False) -> nn.Module:
    """Return a checkpoint's model in the type it is stored in, without a pooler on top.

    Parameters
    ----------
    name : str
        Directory or hub id.
    local : bool
        Whether nothing may be fetched from the hub.

    Raises
    ------
    SettingsError
        If there are no weights, or not all that the configuration names.
    """
    try:
        model, info = transformers().AutoModel.from_pretrained(
            name,
            dtype="auto",
            output_loading_info=True,
            local_files_only=local,
            **_NO_CODE,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreadable(name, error) from None
    absent = [k for k in info["missing_keys"] if not k.startswith("pooler.")]
    if absent:
        raise SettingsError(
            f"pretrained = {name!r} has no weights for {sorted(absent)[0]} (and "
            f"{len(absent) - 1} more): expected those of its configuration"
        )
    return without_pooler(model)


def empty_model(config: str) -> nn.Module:
    """Return a model of this configuration; its weights are anything."""
    fields = json.loads(config)
    made = transformers().AutoConfig.for_model(fields.pop("model_type"), **fields)
    return without_pooler(transformers().AutoModel.from_config(made))


def without_pooler(model: nn.Module) -> nn.Module:
    """Drop the layer for the first token: texts are pooled over all of theirs."""
    if hasattr(model, "pooler"):
        model.pooler = None  # type: ignore[assignment]
    return model


def save_checkpoint(
    name: str, model: nn.Module, weights: Mapping[str, Any], folder: Path
) -> None:
    """Write a checkpoint that :func:`read_checkpoint` reads, tokeniser included.

    Parameters
    ----------
    name : str
        Whose tokeniser it is.
    model : Module
        Whose configuration it is.
    weights : mapping of str to tensor
        In the types they are to be stored in.
    """
    model.save_pretrained(folder, state_dict=dict(weights))  # type: ignore[operator]
    if has_tokeniser(name):
        _tokeniser(name).save_pretrained(folder)


def blocks_of(model: nn.Module) -> nn.ModuleList:
    """Return a model's blocks, from the input on."""
    place = BLOCKS[model.config.model_type]  # type: ignore[union-attr, index]
    blocks = model.get_submodule(place)
    assert isinstance(blocks, nn.ModuleList)
    return blocks


def with_blocks(model: nn.Module, blocks: Sequence[nn.Module]) -> nn.Module:
    """Return the same model, all weights shared, with other blocks in its row."""
    *above, last = BLOCKS[model.config.model_type].split(".")  # type: ignore[union-attr, index]
    made = inner = _shallow(model)
    for name in above:
        child = _shallow(inner.get_submodule(name))
        setattr(inner, name, child)
        inner = child
    setattr(inner, last, nn.ModuleList(blocks))
    return made


def _shallow(module: nn.Module) -> nn.Module:
    made = copy(module)
    made._modules = dict(module._modules)
    return made


def tokeniser_of(checkpoint: Checkpoint, length: int) -> Tokeniser:
    """Return the checkpoint's own tokeniser; hashed pieces if it has none.

    Raises
    ------
    SettingsError
        If the checkpoint cannot look at so many tokens.
    """
    if length > checkpoint.positions:
        raise SettingsError(
            f"text-length = {length} is not allowed with pretrained = "
            f"{checkpoint.name!r}: 1 to {checkpoint.positions}"
        )
    vocabulary = checkpoint.words + SHIFT
    if not has_tokeniser(checkpoint.name):
        return HashedPieces(length=length, vocabulary=vocabulary)
    if len(_tokeniser(checkpoint.name)) > checkpoint.words:
        raise SettingsError(
            f"pretrained = {checkpoint.name!r}: its tokeniser has "
            f"{len(_tokeniser(checkpoint.name))} ids, its embedding {checkpoint.words}"
        )
    return CheckpointTokeniser(
        name=checkpoint.name,
        length=length,
        vocabulary=vocabulary,
        files=_files_now(checkpoint.name),
    )


@dataclass(frozen=True, kw_only=True)
class CheckpointTokeniser:
    """The tokeniser that a checkpoint was trained with.

    Two are equal if the files are: texts are kept as what one of them made of them.
    """

    name: str
    length: int
    vocabulary: int
    files: Files = ()

    def encode(self, texts: Iterable[str]) -> NDArray[Any]:
        """Return the ids of texts, shape (N, length), ``PADDING`` at their ends."""
        tokeniser = _tokeniser(self.name)
        # Half a surrogate pair, which JSON may hold, is refused by tokenisers.
        clean = [t.encode("utf-8", "replace").decode() for t in texts]
        found = tokeniser(clean, truncation=True, max_length=self.length)["input_ids"]
        end = tokeniser.eos_token_id or tokeniser.unk_token_id or 0
        rows = [[SHIFT + token for token in ids or [end]] for ids in found]
        return padded(rows, self.length, self.vocabulary)


def fingerprint(checkpoint: Checkpoint) -> str:
    """Return 16 hexadecimal digits over configuration and tokeniser.

    Two that are equal make the same tokens and the same modules of a base.
    """
    digest = hashlib.sha256(checkpoint.config.encode())
    if has_tokeniser(checkpoint.name):
        probe = CheckpointTokeniser(name=checkpoint.name, length=512, vocabulary=2**31)
        words = _tokeniser(checkpoint.name).get_vocab()
        digest.update(json.dumps(sorted(words.items())).encode())
        digest.update(np.asarray(probe.encode([_PROBE]), dtype="<i8").tobytes())
    return digest.hexdigest()[:16]


_PROBE = "The Quick brown-fox's 12.5 naïve jumps!  Över\tÄ 漢字 :-) @user #tag"


def has_tokeniser(name: str) -> bool:
    """Whether a checkpoint comes with a tokeniser; one of the hub always should."""
    if not is_path(name):
        return True
    return any(Path(name, file).is_file() for file in TOKENISER_FILES)


def has_weights(name: str) -> bool:
    """Whether a checkpoint comes with weights; one of the hub may be in its cache."""
    if not is_path(name):
        return True
    return any(file.endswith((".safetensors", ".bin")) for file, *_ in _files_now(name))


def _tokeniser(name: str) -> Any:
    return _read_tokeniser(name, _files_now(name))


@lru_cache(maxsize=4)
def _read_tokeniser(name: str, _files: object) -> Any:
    try:
        return transformers().AutoTokenizer.from_pretrained(name, **_NO_CODE)
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(name, error) from None


def transformers() -> Any:
    """Return the library.

    Raises
    ------
    SettingsError
        If the extra is not installed.
    """
    try:
        return import_module("transformers")
    except ImportError:
        raise SettingsError(
            'backbone = "pretrained" needs an extra that is not installed: '
            "pip install 'expertfleet[hf]'"
        ) from None


def is_path(name: str) -> bool:
    """Whether a directory is meant: ids of the hub are ``NAME`` or ``OWNER/NAME``."""
    if Path(name).is_dir():
        return True
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def _unreadable(name: str, error: Exception) -> SettingsError:
    reason = first_line(str(error).strip() or type(error).__name__)
    return SettingsError(f"pretrained = {name!r} cannot be read: {reason}")
