"""Tiny checkpoints, randomly initialised and saved as any other: BERT and GPT-2."""

from pathlib import Path
from typing import Any

import pytest

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


def save(kind: str, folder: Path, *, tokeniser: bool = True, seed: int = 0) -> str:
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
    model.save_pretrained(folder)
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
