"""How well search finds what was asked for on held-out worlds, and how honest its confidence is:

    python benchmarks/retrieval.py [--more FOLDER] [--write] [--out figures.json]

The gallery is 10,080 moments of 360 held-out worlds (benchmarks/moments.py). An answer is right when the world's facts
at that moment are what was asked for. P@10 is the share of right ones among the first ten; queries that fewer than ten
moments (or scenes) fulfil are left out, and counted. Chance is the share of the gallery that is right.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from moments import Moments, moments
from numpy.typing import NDArray
from retrieval_queries import LANGUAGES, LEAST, Asked, attributes, composed, followed, negated
from sqlalchemy import create_engine

from cloud.embed.gateway import Gateway
from cloud.embed.item import Item
from cloud.search import confidence, planner
from cloud.search.gallery import ANALYSED, TOLD, Batch, Gallery, View
from cloud.search.mirror import Searched
from cloud.search.predicate import NUMBERS
from cloud.search.query import Like, Query
from cloud.search.searcher import Searcher
from edge.uplink.summary import quantised
from export.evaluation.analyst import calibration_error

TOP: Final = 10
JUDGED: Final = 20  # answers of a query whose confidence is judged
PAIRS, TRIPLES, DENIALS, ORDERED = 200, 200, 100, 60
WITHIN: Final = 12  # moments of 0.25 s: 3 s
DIMENSIONS: Final = 192
STEP_NS: Final = 250_000_000
Truth = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class StillMirror:
    """A gallery that does not change, where a server has one that follows its database."""

    current: tuple[Searched, View]
    is_loaded: bool = True
    looked_at: float = 0.0

    def start(self) -> None:
        """Nothing to follow."""

    def close(self) -> None:
        """Nothing to stop."""


@dataclass(frozen=True, slots=True)
class Found:
    """rows: of the gallery, best first. confidence: of each."""

    rows: NDArray[np.int64]
    confidence: NDArray[np.float64]


class Recorder:
    """In the place of confidence's weights: keeps the features of every answer."""

    def __init__(self) -> None:
        self.features: list[NDArray[np.float64]] = []

    def confidence(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Nothing yet."""
        self.features.append(features)
        return np.zeros(len(features))


def gallery(
    labels: Sequence[dict[str, float]], vectors: NDArray[np.float32], per_scene: int, space: str, source: int
) -> StillMirror:
    """Moments as search has them; `per_scene` of them in a row are a scene."""
    scenes = len(labels) // per_scene
    packed = [quantised(np.ascontiguousarray(vector, "<f4").tobytes()) for vector in vectors]
    made = Gallery(DIMENSIONS)
    made.put(
        Batch(
            np.arange(scenes), np.zeros((len(NUMBERS), scenes)),
            {"vehicle": ["car"] * scenes, "bundle": [space] * scenes, "media": ["here"] * scenes},
            np.full((2, scenes), np.nan), [b""] * scenes, np.arange(scenes), np.full(scenes, source, np.uint8),
            (np.arange(len(labels)) // per_scene).astype(np.int32),
            np.arange(len(labels), dtype=np.int64) % per_scene * STEP_NS,
            np.frombuffer(b"".join(values for values, _ in packed), np.int8).reshape(-1, DIMENSIONS),
            np.array([scale for _, scale in packed], np.float32), labels,
        )
    )  # fmt: skip
    return StillMirror((Searched(space, "analyst" if source == ANALYSED else ""), made.view()))


def is_right(asked: Asked, truth: Truth, per_scene: int) -> NDArray[np.bool_]:
    """(n,) which moments a query means; of one in time, those at which it begins."""
    holds = np.logical_and.reduce([truth[name] for name in asked.wanted])
    for name in asked.denied:
        holds = holds & ~truth[name]
    if asked.then:
        second = np.logical_and.reduce([truth[name] for name in asked.then]).reshape(-1, per_scene)
        later = np.zeros_like(second)
        for step in range(1, WITHIN + 1):
            later[:, :-step] |= second[:, step:]
        holds = holds & later.reshape(-1)
    return np.asarray(holds)


def follows(truth: Truth, per_scene: int) -> dict[tuple[str, str], int]:
    """In how many scenes one label comes within 3 s of another."""
    names = list(truth)
    return {
        (a, b): int(is_right(Asked("", (a,), then=(b,)), truth, per_scene).reshape(-1, per_scene).any(1).sum())
        for a in names for b in names if a != b
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks the product: its parser, encoders, ranking and confidence, on galleries that do not change."""

    gateway: Gateway

    async def ask(self, mirror: StillMirror, queries: Sequence[str | Query], weights: Any) -> list[Found]:
        """Answers to each, best first."""
        engine = create_engine("postgresql+psycopg://nowhere")  # never asked: no audits, no explanations
        searcher = Searcher(engine, self.gateway, weights=weights, audited=0.0, mirror=mirror)
        view = mirror.current[1]
        first = np.searchsorted(view.row_scene, np.arange(view.scenes))
        found = []
        try:
            for query in queries:
                page = await searcher.search(query, JUDGED)
                rows = [first[one.scene_id] + one.instant_ns // STEP_NS for one in page.answers]
                found.append(Found(np.array(rows, np.int64), np.array([one.confidence for one in page.answers])))
        finally:
            searcher.close()
        return found

    async def likes(self, texts: Sequence[str]) -> list[Query]:
        """Texts as likenesses alone, as when no word of them is understood."""
        embedded = await self.gateway.embed([Item.of_text(text) for text in texts])
        return [Query(likes=(Like(one.values, one.space, "text"),)) for one in embedded]  # type: ignore[union-attr]


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """All figures, and the weights of confidence written where search looks for them."""
    asker = Asker(Gateway())
    try:
        validation, held_out = (moments(split, options.cache, options.more) for split in ("validation", "held_out"))
        fitted, fit_figures = await fitted_confidence(asker, validation)
        judged = await judge(asker, held_out, fitted)
        judged["confidence"] |= {"fitted on": fit_figures}
        if options.write:
            confidence.FITTED.write_text(
                confidence.to_json(
                    fitted, space=asker.gateway.space, model=held_out.model, figures=judged["confidence"]
                )
            )
        return judged
    finally:
        await asker.gateway.close()


def queries_of(truth: Truth, per_scene: int, seed: int) -> list[Asked]:
    """All that is asked of a gallery of moments."""
    return [
        *attributes(truth), *composed(truth, 2, PAIRS, seed), *composed(truth, 3, TRIPLES, seed),
        *negated(truth, DENIALS, seed), *followed(follows(truth, per_scene), ORDERED, seed),
    ]  # fmt: skip


async def fitted_confidence(asker: Asker, known: Moments) -> tuple[confidence.Weights, dict[str, float]]:
    """The weights of confidence, on validation worlds."""
    truth = known.truth()
    asked = queries_of(truth, known.per_world, seed=1)
    inputs, right = [], []
    for mirror, queries in await _setups(asker, known, asked):
        recorder = Recorder()
        found = await asker.ask(mirror, queries, recorder)
        # One more than a page is looked at, to know whether there is another.
        inputs += [features[: len(one.rows)] for features, one in zip(recorder.features, found)]
        right += [is_right(one, truth, known.per_world)[answers.rows] for one, answers in zip(asked, found)]
    weights = confidence.fit(np.concatenate(inputs), np.concatenate(right))
    return weights, {"queries": float(len(asked)), "answers": float(sum(map(len, right)))}


async def _setups(
    asker: Asker, known: Moments, asked: Sequence[Asked]
) -> list[tuple[StillMirror, Sequence[str | Query]]]:
    """What confidence must be honest for: scenes that were analysed, by text and by likeness alone; moments as told."""
    texts = [one.texts[i % len(LANGUAGES)] for i, one in enumerate(asked)]
    analysed = known.analysed()
    space = asker.gateway.space
    scenes = gallery(analysed, known.looked, known.per_world, space, ANALYSED)
    told = gallery(known.told(), known.fused["embedding"], 1, space, TOLD)
    return [
        (scenes, texts), (gallery(analysed, known.looked, 1, space, ANALYSED), texts), (told, texts),
        (scenes, await asker.likes(texts)),
    ]  # fmt: skip


async def judge(asker: Asker, known: Moments, weights: confidence.Weights) -> dict[str, Any]:
    """P@10, nDCG@10 and calibration on held-out worlds."""
    truth, space = known.truth(), asker.gateway.space
    asked = queries_of(truth, known.per_world, seed=2)
    right = [is_right(one, truth, known.per_world) for one in asked]
    analysed = known.analysed()
    galleries = {
        "vehicle": gallery(known.told(), known.fused["embedding"], 1, space, TOLD),
        "analyst": gallery(analysed, known.looked, 1, space, ANALYSED),
        "scenes": gallery(analysed, known.looked, known.per_world, space, ANALYSED),
    }
    said: dict[str, Any] = {
        "label weight": planner.LABEL_WEIGHT,
        "moments": len(known),
        "scenes": known.worlds,
        "model": known.model,
        "tables": {},
    }
    texts = {language: [one.texts[i] for one in asked] for i, language in enumerate(LANGUAGES)}
    plan: dict[str, tuple[str, Sequence[str | Query]]] = {
        "text to the vehicle's embedding (en)": ("vehicle", await asker.likes(texts["en"])),
        "text to the analyst's embedding (en)": ("analyst", await asker.likes(texts["en"])),
        "search, as vehicles told (en)": ("vehicle", texts["en"]),
        **{f"search, analysed ({language})": ("analyst", texts[language]) for language in LANGUAGES},
        **{f"search, analysed, scenes ({language})": ("scenes", texts[language]) for language in LANGUAGES},
    }
    chances, hits = [], []
    for name, (where, queries) in plan.items():
        found = await asker.ask(galleries[where], queries, weights)
        per_scene = known.per_world if where == "scenes" else 1
        said["tables"][name] = _by_kind(asked, found, right, per_scene)
        if name.startswith("search") or where == "analyst":
            chances += [one.confidence for one in found]
            hits += [truth_of[one.rows] for one, truth_of in zip(found, right)]
            said.setdefault("confidence", {})[name] = _honesty(chances[-len(found) :], hits[-len(found) :])
    said["confidence"]["all"] = _honesty(chances, hits)
    said["worst"] = _worst(asked, await asker.ask(galleries["analyst"], texts["en"], weights), right)
    return said


def _by_kind(
    asked: Sequence[Asked], found: Sequence[Found], right: Sequence[NDArray[np.bool_]], per_scene: int
) -> dict[str, dict[str, float]]:
    """Means over the queries of a kind; those that fewer than LEAST scenes fulfil are left out."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    left_out: dict[str, int] = {}
    for one, answers, holds in zip(asked, found, right):
        if one.then and per_scene == 1:
            continue  # what follows is known of whole scenes alone
        relevant = int(holds.reshape(-1, per_scene).any(1).sum())
        if relevant < LEAST:
            left_out[one.kind] = left_out.get(one.kind, 0) + 1
            continue
        rows.setdefault(one.kind, []).append(
            (*_figures(answers.rows, holds, relevant), relevant / (len(holds) // per_scene))
        )
    return {
        kind: dict(zip(("P@10", "nDCG@10", "chance"), np.mean(values, 0).tolist()))
        | {"queries": len(values), "left out": left_out.get(kind, 0)}
        for kind, values in rows.items()
    }


def _figures(rows: NDArray[np.int64], right: NDArray[np.bool_], relevant: int) -> tuple[float, float]:
    """P@10 and nDCG@10 of rows in order; places that stayed empty are wrong."""
    hits = np.zeros(TOP)
    hits[: len(rows[:TOP])] = right[rows[:TOP]]
    gains = 1.0 / np.log2(np.arange(2, TOP + 2))
    return float(hits.mean()), float((hits * gains).sum() / gains[: min(TOP, relevant)].sum())


def _honesty(chances: Sequence[NDArray[np.float64]], hits: Sequence[NDArray[np.bool_]]) -> dict[str, float]:
    chance, hit = np.concatenate(chances), np.concatenate(hits)
    return {
        "answers": float(len(hit)), "right": float(hit.mean()), "confidence": float(chance.mean()),
        "ece": calibration_error(chance, hit), "brier": float(((chance - hit) ** 2).mean()),
    }  # fmt: skip


def _worst(asked: Sequence[Asked], found: Sequence[Found], right: Sequence[NDArray[np.bool_]]) -> list[list[object]]:
    """The English queries of moments that went worst."""
    rated = [
        [round(_figures(answers.rows, holds, int(holds.sum()))[0], 2), one.texts[0], int(holds.sum())]
        for one, answers, holds in zip(asked, found, right) if not one.then
    ]  # fmt: skip
    return sorted(rated, key=lambda row: float(str(row[0])))[:25]


def main(argv: list[str]) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path("out/train-cache"), help="rendered worlds of the bundle")
    parser.add_argument(
        "--more", type=Path, default=Path("out/more-worlds"), help="further worlds, rendered if missing"
    )
    parser.add_argument("--out", type=Path, help="figures as JSON")
    parser.add_argument("--write", action="store_true", help=f"write {confidence.FITTED.name}")
    parser.add_argument("--label-weight", type=float, default=planner.LABEL_WEIGHT, help="instead of what search uses")
    options = parser.parse_args(argv)
    planner.LABEL_WEIGHT = options.label_weight  # type: ignore[misc]
    said = asyncio.run(run(options))
    text = json.dumps(said, indent=1)
    if options.out:
        options.out.write_text(text + "\n")
    for name, kinds in said["tables"].items():
        print(f"\n{name}")
        for kind, row in kinds.items():
            print(f"  {kind:16s} " + "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    print("\n" + json.dumps(said["confidence"], indent=1))
    print("\n".join(map(str, said["worst"])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
