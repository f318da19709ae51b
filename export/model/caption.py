"""The caption decoder of the cloud: what an embedding of the shared space says, in one of four languages.

A causal transformer over the pieces so far; the embedding and the language stand in front of them. Greedy: the same
embedding gives the same sentence.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.model.layers import EMBEDDING
from export.model.text import HEADS, WIDTH, Block
from export.model.tokens import PIECES, TOKENS, Vocabulary

LANGUAGES = ("en", "de", "es", "fr")
LAYERS = 2
END = 0  # the padding piece ends a sentence


class CaptionDecoder(nn.Module):
    """Logits of the next piece after the embedding, the language and each piece."""

    def __init__(self) -> None:
        super().__init__()
        self.condition = nn.Sequential(nn.Linear(EMBEDDING, 256), nn.ReLU(), nn.Linear(256, WIDTH))
        self.language = nn.Embedding(len(LANGUAGES), WIDTH)
        self.pieces = nn.Embedding(PIECES, WIDTH)
        self.place = nn.Parameter(torch.randn(TOKENS, WIDTH) * 0.02)
        self.blocks = nn.ModuleList([Block(WIDTH, HEADS, grow=4) for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, embedding: Tensor, language: Tensor, tokens: Tensor) -> Tensor:
        """Next pieces.

        Args:
            embedding: (batch, 192) unit length. language: (batch,) int64. tokens: (batch, n) int64, n <= 96.

        Returns:
            (batch, n, PIECES) logits: of the piece at each place, given those before it.
        """
        first = self.condition(embedding * 8.0) + self.language(language)
        before = torch.cat([first[:, None], self.pieces(tokens[:, :-1])], 1)
        x = before + self.place[: tokens.shape[1]]
        there = torch.ones(x.shape[:2], dtype=x.dtype, device=x.device)
        for block in self.blocks:
            x = block(x, there, causal=True)
        logits: Tensor = self.norm(x) @ self.pieces.weight.t()
        return logits


@torch.no_grad()
def captions_of(
    decoder: CaptionDecoder, embeddings: NDArray[np.float32], language: str, words: Vocabulary
) -> list[str]:
    """A sentence for each embedding, (n, 192)."""
    decoder.eval()
    given = torch.from_numpy(np.asarray(embeddings, np.float32))
    which = torch.full((len(given),), LANGUAGES.index(language), dtype=torch.int64)
    tokens = torch.zeros(len(given), TOKENS, dtype=torch.int64)
    open_ = torch.ones(len(given), dtype=torch.bool)
    for place in range(TOKENS):
        said = decoder(given, which, tokens[:, : place + 1])[:, -1].argmax(1) * open_
        tokens[:, place] = said
        open_ &= said != END
        if not bool(open_.any()):
            break
    return [words.decode(row.tolist()) for row in tokens]
