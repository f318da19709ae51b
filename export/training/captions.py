"""Trains the caption decoder on frozen embeddings:

    python -m export.training.captions --weights export/reference/weights.npz --out export/reference/captions.npz

Half of the sentences are those of training moments, told from what the fusion made of them; half tell random facts,
told from the facts' own place in the shared space, so that no combination of facts is new to it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from export.model.caption import LANGUAGES, CaptionDecoder, captions_of
from export.model.network import Network
from export.model.tokens import Vocabulary
from export.training.dataset import Split, prepare
from export.training.encoders import embeddings_from, features_of
from export.training.language import facts_from, random_facts
from export.training.plan import FULL, SMALL, plans
from export.training.progress import Progress
from export.training.schedule import Stage
from export.training.sequences import run_worlds
from export.training.weights import load_weights
from export.world.grammar import sentence

STAGE, SMALL_STAGE = Stage(450, 128, 3e-3), Stage(6, 16, 2e-3)
NOISE = 0.02
CHECKED = 400  # held-out moments that are captioned


def main(argv: list[str]) -> int:
    """Entry point of `python -m export.training.captions`."""
    options = _options(argv)
    size, stage = (SMALL, SMALL_STAGE) if options.small else (FULL, STAGE)
    cache = options.cache / "small" if options.small else options.cache
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    net, words = load_weights(options.weights), Vocabulary.open(options.weights.parent / "vocabulary.json")
    splits = {name: prepare(cache / name, plans(name, size, options.seed), 1, name) for name in ("fresh", "held_out")}
    fused = {}
    for name, split in splits.items():
        found = embeddings_from(net, features_of(net, split, torch.device("cpu")))
        fused[name] = run_worlds(net.fuse, found, split.per_world)
    decoder = CaptionDecoder()
    train_captions(decoder, net, fused["fresh"], splits["fresh"], words, stage, options.seed)
    figures = caption_figures(decoder, fused["held_out"], splits["held_out"], words)
    halves = {name: value.half().numpy() for name, value in decoder.state_dict().items()}
    np.savez_compressed(options.out, allow_pickle=False, **halves)
    options.out.with_suffix(".json").write_text(json.dumps({"seed": options.seed, **figures}, indent=1) + "\n")
    print(json.dumps(figures))
    return 0


def train_captions(
    decoder: CaptionDecoder, net: Network, fused: Tensor, split: Split, words: Vocabulary, stage: Stage, seed: int
) -> None:
    """Trains the decoder alone.

    Args:
        fused: (frames, 192) of the split.
    """
    decoder.train()

    def loss(batch: object, step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([seed, 7, step])
        rows = rng.integers(0, len(split), stage.batch // 2)
        facts = [split.facts[row] for row in rows] + [random_facts(rng) for _ in range(stage.batch - len(rows))]
        languages = rng.integers(0, len(LANGUAGES), stage.batch)
        told = [words.encode(sentence(LANGUAGES[k], facts_from(row))) for k, row in zip(languages, facts)]
        tokens = torch.from_numpy(np.stack(told))
        tokens = tokens[:, : int((tokens > 0).sum(1).max()) + 1]
        with torch.no_grad():
            anchors = net.facts(torch.from_numpy(np.stack(facts[len(rows) :]).astype(np.int64)))
        given = torch.cat([fused[rows], anchors])
        given = F.normalize(given + torch.from_numpy(rng.normal(0.0, NOISE, given.shape).astype(np.float32)), dim=1)
        logits = decoder(given, torch.from_numpy(languages), tokens)
        counts = torch.cat([torch.ones_like(tokens[:, :1]), tokens[:, :-1]], 1) > 0  # pieces and the first end
        return F.cross_entropy(logits[counts], tokens[counts]), {}

    steps = stage.steps
    Progress(None, {}, 1).stage(
        "captions", decoder, list(decoder.parameters()), stage, lambda first: iter(range(first, steps)), loss
    )


def caption_figures(decoder: CaptionDecoder, fused: Tensor, split: Split, words: Vocabulary) -> dict[str, float]:
    """Share of held-out captions that are right word for word, and of their sentences that are, by language."""
    rows = np.linspace(0, len(split) - 1, min(CHECKED, len(split))).astype(int)
    found: dict[str, float] = {"moments": float(len(rows))}
    for language in LANGUAGES:
        said = captions_of(decoder, fused[rows].numpy(), language, words)
        true = [words.decode(words.encode(split.captions[language][row])) for row in rows]
        found[f"{language} right"] = float(np.mean([a == b for a, b in zip(said, true)]))
        shares = [_shared(a, b) for a, b in zip(said, true)]
        found[f"{language} sentences right"] = float(np.mean(shares))
    return found


def _shared(said: str, true: str) -> float:
    """Share of the true sentences that are said."""
    wanted, given = ({part.strip() for part in text.split(".") if part.strip()} for text in (true, said))
    return len(wanted & given) / max(len(wanted | given), 1)


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m export.training.captions", description=__doc__.split(":")[0])
    parser.add_argument("--weights", type=Path, required=True, help="of `roadfuse train`, vocabulary.json beside")
    parser.add_argument("--cache", type=Path, default=Path("out/train-cache"), help="rendered worlds")
    parser.add_argument("--out", type=Path, required=True, help="weights to write (.npz), figures beside (.json)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--small", action="store_true")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
