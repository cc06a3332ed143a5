"""Tiny checkpoints, randomly initialised and saved as any other: BERT and GPT-2.

And devices that have such a checkpoint or lack its weights, in one process.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client_app.app import app as client_app
from common.moe import bases

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "good",
    "bad",
    "very",
    "not",
    "plot",
    "sound",
    "the",
    "a",
    ",",
    ".",
]
WIDTH, BLOCKS, POSITIONS = 16, 3, 12


def save(
    kind: str,
    folder: Path,
    *,
    tokeniser: bool = True,
    seed: int = 0,
    dtype: str = "float32",
) -> str:
    """Write a checkpoint of a kind and return its directory."""
    transformers = pytest.importorskip("transformers", reason="needs the extra hf")
    import torch

    common: dict[str, Any] = {"vocab_size": len(WORDS)}
    if kind == "bert":
        config = transformers.BertConfig(
            **common,
            hidden_size=WIDTH,
            num_hidden_layers=BLOCKS,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=POSITIONS,
        )
    else:
        config = transformers.GPT2Config(
            **common,
            n_embd=WIDTH,
            n_layer=BLOCKS,
            n_head=2,
            n_positions=POSITIONS,
            bos_token_id=3,
            eos_token_id=3,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModel.from_config(config)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    if tokeniser:
        _tokeniser(kind).save_pretrained(folder)
    return str(folder)


def _tokeniser(kind: str) -> Any:
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = {word: number for number, word in enumerate(WORDS)}
    inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = {"unk_token": "[UNK]"}
    if kind == "bert":
        inner.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        special |= {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    else:
        special["eos_token"] = "[SEP]"  # GPT-2 has no padding and no frame
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **special)  # type: ignore[no-untyped-call]


def without_weights(checkpoint: str, folder: Path) -> str:
    """Copy what a device needs of a checkpoint at least; return the directory."""
    ignored = shutil.ignore_patterns("*.safetensors")
    return str(shutil.copytree(checkpoint, folder, ignore=ignored))


@contextmanager
def own_process() -> Iterator[None]:
    """Begin without the bases of this process, as every message on a device does."""
    before = dict(bases._installed)
    bases._installed.clear()
    try:
        yield
    finally:
        bases._installed.clear()
        bases._installed.update(before)


class Devices:
    """A ClientApp whose every message is handled as in a process of its own.

    Attributes
    ----------
    app : ClientApp
    nodes : dict of int to dict
        What the owners say in their node configurations; virtual clients say nothing.
    down : list of (str, int, Message)
        Group, node and message of everything but queries of who they are.
    """

    def __init__(self, nodes: dict[int, dict[str, Any]]) -> None:
        self.nodes = nodes
        self.down: list[tuple[str, int, Message]] = []
        self.app = ClientApp()
        self.app.query()(self._answer)
        self.app.query("base")(self._noted)
        self.app.train()(self._noted)
        self.app.evaluate()(self._noted)

    def _answer(self, message: Message, context: Context) -> Message:
        context.node_config.update(self.nodes.get(context.node_id, {}))
        with own_process():
            return client_app(message, context)

    def _noted(self, message: Message, context: Context) -> Message:
        self.down.append((message.metadata.group_id, context.node_id, message))
        return self._answer(message, context)
