"""The last stage: the text tower learns where the facts lie that a sentence tells, in every language of the grammars.

Half of the sentences tell facts of training moments, half tell facts drawn at random, so that no combination is new.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from export.model.labels import FACT_SOUNDS, FACTS
from export.model.network import Network
from export.model.tokens import Vocabulary, learn
from export.training.dataset import LANGUAGES, Split
from export.training.losses import nce_loss
from export.training.progress import Progress
from export.training.schedule import Stage
from export.world.facts import Facts
from export.world.grammar import captions

RANDOM_SENTENCES = 400  # from which the pieces are learned, besides the training captions


def learn_vocabulary(split: Split, seed: int) -> Vocabulary:
    """Byte-pair pieces from the training captions and from random facts, in all languages."""
    rng = np.random.default_rng([seed, 5])
    texts = {text for language in LANGUAGES for text in split.captions[language]}
    for _ in range(RANDOM_SENTENCES):
        texts.update(captions(facts_from(random_facts(rng))).values())
    return learn(sorted(texts))


def train_text(net: Network, split: Split, words: Vocabulary, stage: Stage, seed: int, progress: Progress) -> None:
    """Trains the text tower alone."""
    net.train()
    known = np.unique(split.facts, axis=0)

    def loss(batch: object, step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([seed, 6, step])
        facts = np.stack([
            known[rng.integers(len(known))] if rng.random() < 0.5 else random_facts(rng) for _ in range(stage.batch)
        ])  # fmt: skip
        tokens = torch.from_numpy(tokens_of(facts, words, rng))
        text = net.text(tokens)
        with torch.no_grad():
            anchor = net.facts(torch.from_numpy(facts.astype(np.int64)))
        moment = torch.from_numpy(np.unique(facts, axis=0, return_inverse=True)[1].reshape(-1))
        apart = (1.0 - (text * anchor).sum(1)).mean()
        nce = nce_loss(text, anchor, torch.tensor(3.5), moment)
        hits = (text @ anchor.t()).argmax(1) == torch.arange(len(text))
        figures = {"apart": float(apart.detach()), "R@1 of its facts": float(hits.float().mean())}
        return 4.0 * apart + nce, figures

    progress.stage("text", net, list(net.text.parameters()), stage, lambda first: iter(range(first, stage.steps)), loss)
    net.eval()


def tokens_of(facts: NDArray[np.integer], words: Vocabulary, rng: np.random.Generator) -> NDArray[np.int64]:
    """(n, longest) int64: each fact set as a sentence in a language drawn at random, cut to the longest."""
    rows = []
    for row in facts:
        told = captions(facts_from(row))
        rows.append(words.encode(told[LANGUAGES[int(rng.integers(len(LANGUAGES)))]]))
    tokens = np.stack(rows)
    return tokens[:, : max(int((tokens > 0).sum(1).max()), 1)]


def random_facts(rng: np.random.Generator) -> NDArray[np.int16]:
    """(13,) indices of facts that can be told together: no weather in a tunnel, no large vehicle without a vehicle."""
    row = [int(rng.integers(len(values))) for values in FACTS.values()]
    place = list(FACTS).index
    covered = FACTS["place"][row[place("place")]] == "tunnel"
    for name in ("light", "weather"):
        row[place(name)] = 0 if covered else int(rng.integers(1, len(FACTS[name])))
    if FACTS["vehicles"][row[place("vehicles")]] == "none" or rng.random() < 0.4:
        row[place("kind")] = 0
    if rng.random() < 0.6:
        row[place("sign")] = 0
    row[place("emergency")] = int(rng.random() < 0.15)
    return np.array([*row, *(rng.random(len(FACT_SOUNDS)) < 0.25)], np.int16)


def facts_from(row: NDArray[np.integer]) -> Facts:
    """Indices back into facts."""
    told: dict[str, object] = {name: values[int(row[i])] for i, (name, values) in enumerate(FACTS.items())}
    told["emergency"] = told["emergency"] == "True"
    sounds = tuple(name for i, name in enumerate(FACT_SOUNDS, len(FACTS)) if row[i])
    return Facts(**told, sounds=sounds)  # type: ignore[arg-type]


@torch.no_grad()
def text_embeddings(net: Network, texts: list[str], words: Vocabulary) -> Tensor:
    """(n, 192)."""
    net.eval()
    parts = []
    for start in range(0, len(texts), 256):
        tokens = np.stack([words.encode(text) for text in texts[start : start + 256]])
        parts.append(F.normalize(net.text(torch.from_numpy(tokens)), dim=1))
    return torch.cat(parts)
