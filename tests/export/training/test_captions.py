"""The caption decoder says an embedding's sentence in the language asked for, and says it the same each time."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the export tier is not installed: no torch")

from export.model.caption import LANGUAGES, CaptionDecoder, captions_of  # noqa: E402
from export.model.layers import EMBEDDING  # noqa: E402
from export.model.tokens import learn  # noqa: E402

SENTENCES = {
    "en": ["the car stands still .", "the car turns left ."],
    "de": ["das auto steht .", "das auto biegt ab ."],
    "es": ["el coche está parado .", "el coche gira ."],
    "fr": ["la voiture est à l'arrêt .", "la voiture tourne ."],
}
WORDS = learn([text for texts in SENTENCES.values() for text in texts], 400)


def test_it_says_what_it_was_taught_in_each_language_and_the_same_again() -> None:
    torch.manual_seed(0)
    decoder, given = CaptionDecoder(), torch.nn.functional.normalize(torch.randn(2, EMBEDDING), dim=1)
    rows = [(k, i) for k in range(len(LANGUAGES)) for i in range(2)]
    tokens = torch.from_numpy(np.stack([WORDS.encode(SENTENCES[LANGUAGES[k]][i]) for k, i in rows]))[:, :40]
    language, which = torch.tensor([k for k, _ in rows]), torch.tensor([i for _, i in rows])
    counts = torch.cat([torch.ones_like(tokens[:, :1]), tokens[:, :-1]], 1) > 0
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=3e-3)
    for _ in range(120):
        logits = decoder(given[which], language, tokens)
        loss = torch.nn.functional.cross_entropy(logits[counts], tokens[counts])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for name, texts in SENTENCES.items():
        said = captions_of(decoder, given.numpy(), name, WORDS)
        assert [" ".join(text.split()) for text in said] == texts
        assert captions_of(decoder, given.numpy(), name, WORDS) == said


def test_a_piece_never_sees_those_after_it() -> None:
    torch.manual_seed(0)
    decoder = CaptionDecoder().eval()
    given, language = torch.randn(1, EMBEDDING), torch.zeros(1, dtype=torch.int64)
    one = torch.randint(1, 300, (1, 12))
    other = one.clone()
    other[0, 6:] = 5
    with torch.no_grad():
        first, second = decoder(given, language, one), decoder(given, language, other)
    torch.testing.assert_close(first[:, :7], second[:, :7], rtol=0, atol=1e-6)
