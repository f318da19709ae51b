"""How fast and how complete search is: server processes with a gallery of N moments, a load process beside them.

The load is open: queries leave at random times of a fixed rate whatever the answers do, and a latency counts from the
time at which its query should have left. Each query is a text that was never asked before, so that reading it, its
tower, TLS, gRPC and the API key are all within what is measured. It asks through search's own client, which sends
together what comes while its calls are under way. All processes share this machine's cores.

The gallery is not rendered. Its vectors are captions of random facts of the world's grammar by the reference bundle's
text tower, moved by noise with the captions' own covariance, so strong that a caption finds its own moment among 1,000
as often as docs/reference-bundle.md says it does of real held-out moments (R@1 0.826). Real moments of one drive
resemble each other more than that; labels are the facts, with probabilities that are mostly sure. Recall is against
exact ranking of the same bytes.

`--fresh` is another run: a real server follows a database of so many scenes; how long it takes to load them, and how
long a scene that was just committed takes to be found, asked for every 10 ms.

    python benchmarks/search.py [--rows 100000] [--rates 200,500,1000] [--seconds 20] [--processes 2] [--fresh]

It prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text

from cloud import certificates, keys
from cloud.database import connect, migrate
from cloud.embed.gateway import Gateway
from cloud.embed.item import Item
from cloud.errors import QueryError
from cloud.postgres import Postgres
from cloud.search import planner
from cloud.search.client import Client
from cloud.search.gallery import TOLD, Batch, Gallery, View
from cloud.search.mirror import Searched
from cloud.search.predicate import ANY, NUMBERS, Between, Has, Predicate
from cloud.search.searcher import Searcher
from cloud.search.server import answer, run
from cloud.settings import Settings
from export.model.labels import EGO_ACTIONS
from export.world.facts import SOUNDS, Facts
from export.world.grammar import SIGNS, captions
from roadfuse.v1 import search_pb2

R_AT_1 = 0.826  # text to scene among 1,000 held-out moments, docs/reference-bundle.md
CAPTIONS = 20_000
BLOCK = 20_000
SHARES = 4
JUDGED = 128  # queries by which recall is told


def random_facts(of: random.Random) -> Facts:
    """Facts that can be told together."""
    place = of.choice(("highway", "urban", "residential", "tunnel"))
    light = "" if place == "tunnel" else of.choice(("day", "dusk", "night"))
    weather = of.choice(("clear", "rain", "fog", "snow")) if light else ""
    vehicles = of.choice(("none", "one", "several"))
    kind = "" if vehicles == "none" else of.choice(("", "car", "van", "truck", "bus"))
    sign = of.choice(SIGNS) if of.random() < 0.3 else ""
    intent = of.choice(("waits", "will_cross", "crosses")) if of.random() < 0.3 else ""
    sounds = tuple(name for name in SOUNDS if of.random() < 0.12)
    return Facts(
        place, light, weather, of.choice(EGO_ACTIONS), vehicles, kind, of.random() < 0.05, sign, intent, sounds
    )


def labels_of(facts: Facts) -> list[str]:
    """As the catalogue names them."""
    pairs = (
        ("place", facts.place), ("light", facts.light), ("weather", facts.weather), ("action", facts.action),
        ("vehicles", facts.vehicles), ("large", facts.kind), ("sign", facts.sign), ("intent", facts.intent),
    )  # fmt: skip
    said = [f"{name}:{value}" for name, value in pairs if value] + [f"sound:{name}" for name in facts.sounds]
    return [*said, "emergency:yes"] if facts.emergency else said


def embedded(texts: Sequence[str]) -> tuple[str, NDArray[np.float32]]:
    """Space, and (n, d) vectors of texts."""

    async def run() -> tuple[str, NDArray[np.float32]]:
        gateway = Gateway()
        found = [
            vector
            for first in range(0, len(texts), 256)
            for vector in await gateway.embed([Item.of_text(one) for one in texts[first : first + 256]])
        ]
        await gateway.close()
        return gateway.space, np.stack([vector.array for vector in found])  # type: ignore[union-attr]

    return asyncio.run(run())


def normalised(vectors: NDArray[Any]) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def spread(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """A matrix that gives standard noise the vectors' covariance."""
    values, axes = np.linalg.eigh(np.cov(vectors.T))
    return (axes * np.sqrt(np.maximum(values, 0.0))).T.astype(np.float32)


def fitted_noise(vectors: NDArray[np.float32], shape: NDArray[np.float32], of: np.random.Generator) -> float:
    """The strength with which a caption's moment is found first among 1,000 as often as in the world."""
    low, high = 0.0, 2.0
    for _ in range(14):
        middle, right = (low + high) / 2, 0
        for first in range(0, 5_000, 1_000):
            some = vectors[first : first + 1_000]
            moments = normalised(some + middle * of.standard_normal(some.shape).astype(np.float32) @ shape)
            right += int((np.argmax(some @ moments.T, axis=1) == np.arange(len(some))).sum())
        low, high = (middle, high) if right / 5_000 > R_AT_1 else (low, middle)
    return low


def filled(rows: int, seed: int) -> tuple[str, Gallery, dict[str, float]]:
    """A gallery of scenes of one moment each."""
    of, noise = random.Random(seed), np.random.default_rng(seed)
    facts = list({random_facts(of) for _ in range(CAPTIONS)})
    space, texts = embedded([captions(each)["en"] for each in facts])
    shape = spread(texts)
    strength = fitted_noise(texts, shape, noise)
    gallery = Gallery(texts.shape[1])
    start = time.perf_counter()
    for first in range(0, rows, BLOCK):
        count = min(BLOCK, rows - first)
        which = noise.integers(0, len(facts), count)
        moved = normalised(
            texts[which] + strength * noise.standard_normal((count, texts.shape[1])).astype("f4") @ shape
        )
        scales = np.abs(moved).max(1) / 127.0
        numbers = noise.random((len(NUMBERS), count))
        gallery.put(
            Batch(
                np.arange(first + 1, first + count + 1),
                numbers,
                {
                    "vehicle": [f"car-{i % 100}" for i in range(count)],
                    "bundle": [space] * count,
                    "media": ["here"] * count,
                },
                np.full((2, count), np.nan),
                [b"o" * 16] * count,
                np.arange(first + 1, first + count + 1),
                np.full(count, TOLD, np.uint8),
                np.arange(count, dtype=np.int32),
                np.full(count, 10**9, np.int64),
                np.rint(moved / scales[:, None]).astype(np.int8),
                scales.astype(np.float32),
                [{label: 1.0 - 0.4 * of.random() ** 3 for label in labels_of(facts[i])} for i in which],
            )
        )
    said = {
        "captions": len(facts), "noise": round(strength, 3), "fill_s": round(time.perf_counter() - start, 1),
        "cosine_of_moment_and_own_caption": round(float((moved * texts[which]).sum(1).mean()), 3),
        "cosine_of_any_two_moments": round(float((moved[:1000] @ moved[1000:2000].T).mean()), 3),
    }  # fmt: skip
    return space, gallery, said


class Still:
    """Stands where the mirror does: the gallery comes from no database."""

    def __init__(self, space: str, gallery: Gallery) -> None:
        self._searched, self._gallery = Searched(space, ""), gallery
        self.is_loaded, self.looked_at = True, time.monotonic()

    @property
    def current(self) -> tuple[Searched, View]:
        return self._searched, self._gallery.view()

    def start(self) -> None:
        """Nothing to follow."""

    def close(self) -> None:
        """Nothing to end."""


def questions(kind: str, seed: int, count: int) -> list[str]:
    """Texts that nobody asked before, the languages in turn.

    free: a caption with a word that no condition knows, so that likeness ranks the whole gallery.
    labels: two or three facts, so that conditions filter first; of SHARES seeds that follow each other no two give a
    text of the other's.
    """
    of = random.Random(seed)
    made: dict[str, None] = {}
    while len(made) < count:
        caption = captions(random_facts(of))[("en", "de", "es", "fr")[len(made) % 4]]
        if kind == "labels":
            parts = [part.strip(" .") for part in caption.replace(".", ",").split(",") if part.strip(" .")]
            caption = ", ".join(of.sample(parts, min(len(parts), of.choice((2, 3)))))
        if kind == "free" or zlib.crc32(caption.encode()) % SHARES == seed % SHARES:
            made[caption] = None
    return list(made)


def serve(folder: str, rows: int, seed: int) -> None:
    """The server process: says its port and what it holds, then serves; told to measure, it says recall."""
    data = Path(folder)
    database = (data / "url").read_text()
    engine = connect(database)
    space, gallery, said = filled(rows, seed)
    gateway = Gateway()
    searcher = Searcher(engine, gateway, audited=0.0, mirror=Still(space, gallery))
    view = gallery.view()
    _, asked = embedded(questions("free", seed + 1, 512))
    start = time.perf_counter()
    searcher._asked.extend(asked[:256])  # as if live queries had come
    searcher.build_index()
    said["index_s"] = round(time.perf_counter() - start, 1)
    if searcher.index is not None:
        said |= {"lists": searcher.index.lists.nlist, "probes": searcher.index.probes}
    said["recall"] = recalls(searcher, view, asked[256 : 256 + JUDGED])  # type: ignore[assignment]
    print(json.dumps(said), flush=True)
    settings = Settings(data, database, search_ports=(0,))
    server_key, _ = certificates.server_files(data / "ca")
    run(answer(settings, server_key, engine, gateway, searcher, lambda line: print(line, flush=True)))


def recalls(searcher: Searcher, view: View, queries: NDArray[np.float32]) -> dict[str, Any]:
    """Recall at 10 by the share that a filter leaves, and how long one query takes alone."""
    filters: dict[str, Predicate] = {"none": ANY, "light:night": Has("light:night"), "sound:siren": Has("sound:siren")}
    for share in (0.2, 0.05, 0.01, 0.001, 0.0001):
        filters[f"{100 * share:g} %"] = Between("hardness", 0.0, share)
    said = {}
    for name, predicate in filters.items():
        hits = total = short = 0
        times = []
        for query in queries:
            sought = planner.Sought(predicate, query, 10)
            start = time.perf_counter()
            (found,) = planner.find(view, searcher.index, [sought])
            times.append(1e3 * (time.perf_counter() - start))
            (exact,) = planner.find(view, None, [sought])
            hits += len(np.intersect1d(found.rows, exact.rows))
            total += len(exact.rows)
            short += len(found.rows) < len(exact.rows)
        said[name] = {
            "recall_at_10": round(hits / max(total, 1), 4), "path": found.path, "short_answers": short,
            "ms_p50": round(float(np.percentile(times, 50)), 2), "ms_p99": round(float(np.percentile(times, 99)), 2),
        }  # fmt: skip
    return said


def cpu_s(pid: int) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def loaded(
    addresses: list[str], ca: bytes, key: str, kind: str, rate: float, seconds: float, seed: int
) -> dict[str, Any]:
    """Ask at a rate, by search's own client; latencies in ms."""
    count = int(rate * seconds)
    empty = search_pb2.SearchCondition(all_of=search_pb2.SearchConditions())
    # A free text goes as an example: its embedding alone speaks.
    requests = [
        search_pb2.SearchRequest(query=query, limit=10)
        for query in (
            search_pb2.SearchQuery(text=said)
            if kind == "labels"
            else search_pb2.SearchQuery(condition=empty, examples=[search_pb2.SearchExample(text=said)])
            for said in questions(kind, seed, count)
        )
    ]
    client = Client(",".join(addresses), ca, key)
    for request in requests[:8]:
        client.ask(request).result()
    latencies: list[float] = []
    failures: list[str] = []
    paths: Counter[str] = Counter()
    last = threading.Semaphore(0)

    def came(page: Future[search_pb2.SearchResponse], due: float) -> None:
        took = 1e3 * (time.perf_counter() - due)
        if page.exception() is None:
            latencies.append(took)
            paths[page.result().path] += 1
        else:
            failures.append(str(page.exception()))
        last.release()

    gc.collect()
    gc.freeze()
    of = random.Random(seed)
    used = time.process_time()
    first = due = time.perf_counter() + 0.1
    for request in requests[8:]:
        due += of.expovariate(rate)
        wait = due - time.perf_counter()
        if wait > 0.0005:
            time.sleep(wait)
        client.ask(request).add_done_callback(partial(came, due=due))
    for _ in requests[8:]:
        last.acquire()
    took, used = time.perf_counter() - first, time.process_time() - used
    client.close()
    quantiles = np.percentile(latencies or [float("nan")], [50, 95, 99, 99.9])
    return {
        "kind": kind, "asked_per_s": rate, "answered_per_s": round(len(latencies) / took, 1), "answers": len(latencies),
        "failures": len(failures), "failure": failures[0] if failures else "", "paths": paths,
        "load_cpu_ms_each": round(1e3 * used / max(count, 1), 3),
        **{f"ms_{name}": round(float(value), 2) for name, value in zip(("p50", "p95", "p99", "p99.9"), quantiles)},
    }  # fmt: skip


MANY_SCENES = """
INSERT INTO scenes (vehicle, outbox, sequence, first_ns, peak_ns, last_ns, hardness, scores, scene_tags, sound_events,
    embedding, embedding_scale, bundle_id, lane_probability, media, reason, bytes, sha256)
SELECT 'car', :outbox, :last + number, 0, 1, 2, random(), '[]', '[{"name": "night", "probability": 0.9}]', '[]',
    (SELECT array_agg(trunc(random() * 254 - 127)) FROM generate_series(number, number + 191))::real[]::halfvec, 0.001,
    :space, 0, 1, '', 0, '' FROM generate_series(1, :count) AS number RETURNING id
"""
PROGRAM = (
    "import logging, sys; from pathlib import Path; from cloud.settings import Settings\n"
    "from cloud.search.server import serve\n"
    "serve(Settings(Path(sys.argv[1]), sys.argv[2], search_ports=(0,)), lambda line: print(line, flush=True))"
)


def fresh(data: Path, database: str, key: str, scenes: int, asked: int) -> dict[str, Any]:
    """How long scenes take from their commit to being found."""
    engine, outbox = connect(database), b"o" * 16
    space = Gateway().space
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("INSERT INTO vehicles (name) VALUES ('car')"))
        connection.execute(
            text("INSERT INTO outboxes (vehicle, outbox, last_sequence) VALUES ('car', :outbox, 0)"), {"outbox": outbox}
        )
        place = {"outbox": outbox, "space": space}
        connection.execute(text(MANY_SCENES), {**place, "last": 0, "count": scenes})
    start = time.perf_counter()
    argv = [sys.executable, "-c", PROGRAM, str(data), database]
    server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = server.stdout.readline().split()[1]
    client = Client(address, (data / "ca" / "ca.pem").read_bytes(), key)
    while client.search(limit=1).matching != scenes:
        time.sleep(0.05)
    loaded_s, waits = time.perf_counter() - start, []
    of = random.Random(1)
    for number in range(1, asked + 1):
        with engine.begin() as connection:
            scene = connection.execute(text(MANY_SCENES), {**place, "last": scenes + number, "count": 1}).scalar_one()
        committed = time.perf_counter()
        example = search_pb2.SearchExample(moment=search_pb2.SearchMoment(scene_id=scene))
        while True:
            try:
                client.search(examples=[example], limit=1)
                break
            except QueryError:
                time.sleep(0.01)
        waits.append(time.perf_counter() - committed)
        time.sleep(of.uniform(0.0, 0.25))
    client.close()
    server.terminate()
    server.wait(60)
    engine.dispose()
    quantiles = {f"found_after_s_p{p:g}": round(float(np.percentile(waits, p)), 3) for p in (50, 99, 100)}
    return {"scenes": scenes, "start_and_load_s": round(loaded_s, 1), "asked": asked, **quantiles}


@contextmanager
def started(
    data: Path, rows: int, seed: int, processes: int
) -> Iterator[tuple[list[subprocess.Popen[str]], list[str], Any]]:
    """Server processes, where they listen, and what the last of them says of its gallery."""
    words = [sys.executable, __file__, "--serve", str(data), "--rows", str(rows), "--seed", str(seed)]
    servers = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    addresses, gallery = [], None
    try:
        for server in servers:
            assert server.stdout is not None
            gallery = json.loads(server.stdout.readline())
            addresses.append(server.stdout.readline().split()[1])
            threading.Thread(target=server.stdout.read, daemon=True).start()
        yield servers, addresses, gallery
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait(60)


def measured(servers: Sequence[subprocess.Popen[str]], load: dict[str, Any]) -> dict[str, Any]:
    """What a load process says, and what its queries cost the servers."""
    before = sum(cpu_s(server.pid) for server in servers)
    words = [sys.executable, __file__, "--load", json.dumps(load)]
    said: dict[str, Any] = json.loads(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout)
    used = sum(cpu_s(server.pid) for server in servers) - before
    said["server_cpu_ms_each"] = round(1e3 * used / max(said["answers"], 1), 3)
    return said | {"load_average": round(os.getloadavg()[0], 1)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rates", default="200,500,1000")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--kinds", default="free,labels")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2, help="of search, each with all moments")
    parser.add_argument("--fresh", action="store_true", help="follow a database instead")
    parser.add_argument("--serve", metavar="DIR", help=argparse.SUPPRESS)
    parser.add_argument("--load", metavar="JSON", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.rows, args.seed)
        return
    if args.load:
        said = json.loads(args.load)
        print(json.dumps(loaded(ca=Path(said.pop("ca")).read_bytes(), **said)))
        return
    said: dict[str, Any] = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores", "rows": args.rows,
        "load_before": os.getloadavg()[0],
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="roadfuse-bench-", ignore_cleanup_errors=True) as folder:
        data = Path(folder)
        data.chmod(0o755)
        with Postgres(data / "postgres") as postgres:
            (data / "url").write_text(postgres.url)
            certificates.create(data / "ca")
            certificates.issue_server(data / "ca", ["localhost", "127.0.0.1"])
            engine = connect(postgres.url)
            migrate(engine)
            with engine.begin() as connection:
                key = keys.create(connection, "load")
            if args.fresh:
                print(json.dumps(said | fresh(data, postgres.url, key, args.rows, 200), indent=2))
                return
            with started(data, args.rows, args.seed, args.processes) as (servers, addresses, gallery):
                said |= {"processes": args.processes, "gallery": gallery, "loads": []}
                for kind in args.kinds.split(","):
                    for at, rate in enumerate(map(float, args.rates.split(","))):
                        load = {
                            "addresses": addresses, "ca": str(data / "ca" / "ca.pem"), "key": key, "kind": kind,
                            "rate": rate, "seconds": args.seconds,
                            "seed": 1_000 + at + (500 if kind == "labels" else 0),
                        }  # fmt: skip
                        said["loads"].append(measured(servers, load))
                        print(json.dumps(said["loads"][-1]), file=sys.stderr, flush=True)
            engine.dispose()
    print(json.dumps(said, indent=2))


if __name__ == "__main__":
    main()
