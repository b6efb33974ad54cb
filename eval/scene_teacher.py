"""A tiny English teacher for the quickstart: CLIP's shape, trained against the truth of scenes instead of pictures."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from tqdm import trange
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from data.miniature.scene import BACKGROUNDS, COLOURS, KINDS, RELATIONS, SIZES, Scene
from distill import tower

WIDTH = 128
_END = "</w>"


def scene_features(scenes: Sequence[Scene]) -> NDArray[np.float32]:
    """A picture space without pictures, [scenes, WIDTH]: a fixed random vector for each fact, summed, normalised."""
    facts = [
        [scene.background, *scene.relations]
        + [fact for t in scene.things for fact in (f"{t.count} {t.kind}", t.kind, t.size, f"{t.colour} {t.kind}")]
        for scene in scenes
    ]
    names = sorted(
        {*BACKGROUNDS, *RELATIONS, *SIZES, *KINDS}
        | {f"{colour} {kind}" for colour in COLOURS for kind in KINDS}
        | {f"{count} {kind}" for count in range(1, 5) for kind in KINDS}
    )
    vectors = dict(zip(names, np.random.default_rng(0).standard_normal((len(names), WIDTH)), strict=True))
    sums = np.stack([sum(vectors[fact] * times for fact, times in Counter(some).items()) for some in facts])
    return np.asarray(sums / np.linalg.norm(sums, axis=1, keepdims=True), dtype=np.float32)


def learn_tokenizer(captions: Sequence[str]) -> CLIPTokenizer:
    """A byte-level BPE in CLIP's published form, learned on `captions`."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(end_of_word_suffix=_END))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=1200, initial_alphabet=letters, end_of_word_suffix=_END, show_progress=False
    )
    bpe.train_from_iterator(captions, trainer)
    # CLIP's vocabulary starts with every byte inside a word and at its end, then the merges in order, then the marks.
    vocab = {letter: index for index, letter in enumerate([*letters, *(letter + _END for letter in letters)])}
    learned = {index: token for token, index in bpe.get_vocab().items()}
    for index in sorted(learned):
        vocab.setdefault(learned[index], len(vocab))
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    for mark in ("<|startoftext|>", "<|endoftext|>"):
        vocab[mark] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)  # type: ignore[arg-type]


def train_teacher(captions: Sequence[str], scenes: Sequence[Scene], steps: int, folder: Path) -> None:
    """Train a text tower on captions and the scenes that they say, one for one; save both parts in `folder`."""
    torch.manual_seed(0)
    tokenizer = learn_tokenizer(captions)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=3,
        num_attention_heads=4, projection_dim=WIDTH, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = tower.prepare(CLIPTextModelWithProjection(config), on_cpu=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01, fused=True)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    targets = torch.from_numpy(scene_features(scenes))
    ids = tokenizer(list(captions), truncation=True, padding=True, return_tensors="pt")["input_ids"]
    assert isinstance(ids, torch.Tensor)
    draw = torch.Generator().manual_seed(0)
    for _ in (bar := trange(steps, desc="teacher", unit=" steps")):
        some = torch.randint(len(ids), (256,), generator=draw)
        longest = int(ids[some].ne(tokenizer.eos_token_id).sum(dim=1).max()) + 1
        with torch.autocast("cpu", torch.bfloat16):
            pooled = tower.run(model, ids[some, :longest]).pooled
        logits = F.normalize(pooled, dim=-1) @ targets[some].T / 0.05
        own = torch.arange(len(some))
        loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        rate.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
