"""Search: a query in, a page of scenes out, each at its best moment, with how sure that is and why.

The loop of a query:

    text -> conditions and what is to be alike -> vectors -> the gallery -> confidence -> a page

Everything is in memory; only an explanation asks the database.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from cloud.embed.item import Item, Vector
from cloud.errors import CloudError, QueryError
from cloud.search import confidence, cursor, explain, index, kernel, metrics, planner, rank
from cloud.search.audit import Auditor
from cloud.search.batcher import Batcher
from cloud.search.gallery import View
from cloud.search.mirror import Mirror, Searched
from cloud.search.predicate import ANY
from cloud.search.query import Answers, Like, Query, Request
from cloud.search.reader import Draft, Embeds, Read, Reader, finished
from cloud.search.reader import relaxed as relaxed_to
from cloud.search.teller import Teller, Told
from cloud.search.understand import Understood, understand

_LOG: Final = logging.getLogger(__name__)
MAX_LIMIT: Final = 1_000
MAX_BATCH: Final = 1_024
_READ_AT_ONCE: Final = 16  # queries of a batch; a long text takes milliseconds to understand
# Where fewer scenes than a page are sure of everything that a text asks for, the likeliest follow, and that is said.
ENOUGH: Final = 20
RELAXED: Final = (0.2, 0.02)
_LIKELIEST: Final = "too few scenes are sure of all that was asked for; the likeliest are shown too"
_KEPT_QUERIES: Final = 256
_SECONDS: Final = {path: metrics.SECONDS.labels(path) for path in ("exact", "filtered", "approximate")}
# An index is built when this has passed since the last look at whether one is due.
INDEX_LOOK_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Asked:
    """A query that waits for its turn.

    Attributes:
        vectors: of what it wanted; None: it is embedded then.
        started: when it came, by time.perf_counter.
    """

    draft: Draft
    vectors: Sequence[Vector | CloudError] | None
    limit: int
    place: cursor.Cursor
    is_further: bool
    started: float


@dataclass(frozen=True, slots=True)
class _Ask:
    """A query as it is looked for."""

    query: Query
    sought: planner.Sought
    may_relax: bool
    note: str


@dataclass(frozen=True, slots=True)
class _Answered:
    """A page, what it was ranked by, and among what."""

    page: Answers
    searched: Searched | None
    vector: NDArray[np.float32] | None


class Searcher:
    """Searches what a mirror of the database holds; asked by one event loop at a time, which answers too.

    Args:
        engine: of the database.
        gateway: for texts, pictures, sounds and clips; None: only what needs no encoder.
        weights: of confidence; None: the fitted ones.
        audited: share of approximate queries that the database repeats exactly.
        clock: seconds since 1970, for "last 24 h".
    """

    def __init__(
        self,
        engine: Engine,
        gateway: Embeds | None = None,
        *,
        weights: confidence.Weights | None = None,
        audited: float = 0.001,
        clock: Any = time.time,
        mirror: Any = None,
    ) -> None:
        self._engine = engine
        self._reader = Reader(gateway)
        self._teller = Teller(weights or confidence.load())
        self._clock = clock
        self.mirror: Any = Mirror(engine) if mirror is None else mirror
        self.index: index.Index | None = None
        self._asked: deque[NDArray[np.float32]] = deque(maxlen=_KEPT_QUERIES)
        self._batcher: Batcher[_Asked, _Answered] = Batcher(self._answer_all)
        self._auditor = Auditor(engine, audited)
        self._stopping = threading.Event()
        self._indexer = threading.Thread(target=self._keep_index, name="search-index", daemon=True)

    def start(self) -> None:
        """Follow the database, and keep an index; answers are complete once `is_ready`."""
        self.mirror.start()
        self._indexer.start()

    def close(self) -> None:
        """Stop all threads."""
        self._stopping.set()
        self._batcher.close()
        self.mirror.close()
        self._auditor.close()
        if self._indexer.is_alive():
            self._indexer.join()

    @property
    def is_ready(self) -> bool:
        """Whether the database was looked at once."""
        return bool(self.mirror.is_loaded)

    @property
    def space(self) -> str:
        """The space that is searched; "" before anything is there."""
        current = self.mirror.current
        return "" if current is None else current[0].space

    def view(self) -> View | None:
        """What is searched now."""
        current: tuple[Searched, View] | None = self.mirror.current
        return None if current is None else current[1]

    def statistics(self) -> dict[str, Any]:
        """What can be found now, by the names of roadfuse.v1.StatisticsResponse."""
        current: tuple[Searched, View] | None = self.mirror.current
        if current is None:
            return {}
        (searched, view), known = current, self.index
        said: dict[str, Any] = {
            "space": searched.space,
            "model": searched.model,
            "scenes": view.scenes,
            "moments": int(np.count_nonzero(view.alive)),
            "age_s": time.monotonic() - self.mirror.looked_at,
        }
        if known is not None and known.seen(view) is not None:
            said |= {"indexed_moments": known.rows, "index_recall": known.recall}
        return said

    def warm(self) -> None:
        """Have everything compiled before the first query comes."""
        kernel.warm()
        understand("warm", 0.0)

    def understand(self, text: str) -> Understood:
        """A text as conditions, to be shown and edited.

        Raises:
            QueryError: it can't be.
        """
        return understand(text, self._clock())

    async def search(self, query: Query | str, limit: int = 20, after: str = "", *, explained: bool = False) -> Answers:
        """A page of answers.

        Args:
            query, limit, after, explained: see `Request`.

        Raises:
            QueryError: it can't be understood, or compared with what is searched.
        """
        (answer,) = await self.search_all([Request(query, limit, after, explained)])
        if isinstance(answer, CloudError):
            raise answer
        return answer

    async def search_all(self, requests: Sequence[Request]) -> list[Answers | CloudError]:
        """A page or an error for each request, in order; queries without conditions are one matrix product.

        Raises:
            QueryError: they are none, or too many.
        """
        started = time.perf_counter()
        if not 1 <= len(requests) <= MAX_BATCH:
            raise QueryError(f"expected 1 to {MAX_BATCH} queries, got {len(requests)}")
        read: list[_Asked | CloudError] = []
        for i, request in enumerate(requests):
            if i and i % _READ_AT_ONCE == 0:
                await asyncio.sleep(0)  # other calls have their turn
            read.append(self._read(request, started))
        asked = [one for one in read if isinstance(one, _Asked)]
        if not self._reader.embeds_here:
            asked = await self._embedded(asked)
        done = iter(await self._answered(asked))
        answered = [next(done) if isinstance(one, _Asked) else one for one in read]
        pages: list[Answers | CloudError] = []
        for one in answered:
            if isinstance(one, CloudError):
                metrics.ERRORS.labels(type(one).__name__).inc()
            elif isinstance(one, Exception):
                raise one
            pages.append(one.page if isinstance(one, _Answered) else one)
        explained = [i for i, request in enumerate(requests) if request.explained]
        for i, page in zip(explained, await asyncio.gather(*(self._explained(answered[i]) for i in explained))):
            pages[i] = page or pages[i]
        return pages

    def _read(self, request: Request, started: float) -> _Asked | CloudError:
        if not 1 <= request.limit <= MAX_LIMIT:
            return QueryError(f"expected a limit from 1 to {MAX_LIMIT}, got {request.limit}")
        try:
            place = cursor.decode(request.after) if request.after else cursor.Cursor(self._clock())
        except QueryError as error:
            return error
        draft = self._reader.draft(request.query, place.now_s)
        if isinstance(draft, CloudError):
            return draft
        return _Asked(draft, None, request.limit, place, bool(request.after), started)

    async def _embedded(self, asked: Sequence[_Asked]) -> list[_Asked]:
        texts = [Item.of_text(wanted.text) for one in asked for wanted in one.draft.wanted]
        found = iter(await self._reader.embed(texts) if texts else [])
        return [replace(one, vectors=[next(found) for _ in one.draft.wanted]) for one in asked]

    async def _answered(self, asked: Sequence[_Asked]) -> list[_Answered | Exception]:
        if len(asked) != 1:
            return await self._batcher.ask_all(asked) if asked else []
        try:
            return [await self._batcher.ask(asked[0])]
        except CloudError as error:
            return [error]

    def like_scene(self, scene_id: int, instant_ns: int | None = None, weight: float = 1.0) -> Like:
        """Nearness to a moment of a scene: the one at or before an instant, else its hardest or first one.

        Raises:
            QueryError: there is no such scene, or it has no vector in the space that is searched.
        """
        current: tuple[Searched, View] | None = self.mirror.current
        if current is None or scene_id not in current[1].slots:
            raise QueryError(f"expected a scene that can be searched, got {scene_id}")
        searched, view = current
        rows = view.rows_of(scene_id)
        rows = rows[view.scales[rows] > 0]
        if not len(rows):
            raise QueryError(f"scene {scene_id} has no vector in the space that is searched")
        at = 0 if instant_ns is None else max(int(np.searchsorted(view.instants_ns[rows], instant_ns, "right")) - 1, 0)
        values = view.vectors[rows[at]].astype(np.float32)
        values /= np.linalg.norm(values)
        return Like(values.astype("<f4").tobytes(), searched.space, "scene", weight, f"scene {scene_id}")

    async def similar(self, scene_id: int, instant_ns: int | None = None, limit: int = 20, after: str = "") -> Answers:
        """Scenes like a moment of one; the scene itself comes first.

        Raises:
            QueryError: see `like_scene`.
        """
        return await self.search(Query(ANY, (self.like_scene(scene_id, instant_ns),)), limit, after)

    async def like(self, item: Item, weight: float = 1.0, said: str = "") -> Like:
        """Nearness to content.

        Raises:
            CloudError: it can't be embedded.
        """
        (vector,) = await self._reader.embed([item])
        if isinstance(vector, CloudError):
            raise vector
        return Like(vector.values, vector.space, vector.modality, weight, said)

    def _answer_all(self, asked: Sequence[_Asked]) -> list[_Answered | Exception]:
        """Texts become vectors, vectors rows, rows pages, each step for all at once."""
        current: tuple[Searched, View] | None = self.mirror.current
        wanted = [each.text for one in asked if one.vectors is None for each in one.draft.wanted]
        found = iter(self._reader.vectors(wanted) if wanted else [])
        space = "" if current is None else current[0].space
        asks: list[_Ask | CloudError] = []
        for one in asked:
            vectors = [next(found) for _ in one.draft.wanted] if one.vectors is None else one.vectors
            read = finished(one.draft, vectors, space)
            asks.append(read if isinstance(read, CloudError) else self._ask(read, current, one))
        embedded = time.perf_counter()
        good = [ask for ask in asks if isinstance(ask, _Ask)]
        told = iter(self._told(good, *current) if current is not None else [None] * len(good))
        answers: list[_Answered | Exception] = []
        for one, ask in zip(asked, asks, strict=True):
            if isinstance(ask, CloudError):
                answers.append(ask)
            else:
                page = _page(ask, next(told), space, one, embedded)
                answers.append(_Answered(page, None if current is None else current[0], ask.sought.vector))
        return answers

    def _ask(self, read: Read, current: tuple[Searched, View] | None, asked: _Asked) -> _Ask | CloudError:
        query, place, after = read.query, asked.place, asked.is_further
        space, dimensions = ("", 0) if current is None else (current[0].space, current[1].vectors.shape[1])
        if after and cursor.digest(query, space) != place.asked:
            return QueryError("expected the cursor of this query, got one of another")
        try:
            vector = None if current is None else rank.joined(query.likes, space, dimensions)
        except QueryError as error:
            return error
        if vector is not None and not after:
            self._asked.append(vector)
        # One more than is shown: whether there is another page.
        sought = planner.Sought(query.predicate, vector, asked.limit + 1, place.after, place.shown, after)
        return _Ask(query, sought, read.may_relax, read.note)

    def _told(self, asks: Sequence[_Ask], searched: Searched, view: View) -> list[Told]:
        index = self.index
        told: list[Told] = []
        for ask, found in zip(asks, planner.find(view, index, [ask.sought for ask in asks]), strict=True):
            predicate, note, sure = ask.query.predicate, ask.note, found.matching
            for least in RELAXED if ask.may_relax else ():
                if found.matching is None or found.matching >= ENOUGH:
                    break
                relaxed = relaxed_to(ask.query.predicate, least)
                if relaxed == ask.query.predicate:
                    break
                (wider,) = planner.find(view, index, [replace(ask.sought, predicate=relaxed)])
                if wider.matching is not None and wider.matching > found.matching:
                    found, predicate, note = wider, relaxed, _LIKELIEST
            found = replace(found, matching=sure)
            told.append(self._teller.told(view, predicate, found, note))
            _LOG.debug("searched path=%s rows=%d found=%d", found.path, found.exact_rows, len(found.rows))
            if found.path == "approximate" and ask.query.predicate == ANY and found.vector is not None:
                ids = [int(view.ids[view.row_scene[row]]) for row in found.rows[:-1]]
                self._auditor.offer(searched.space, searched.model, found.vector, ids, found.scores[:-1])
        return told

    async def _explained(self, answered: _Answered | Exception) -> Answers | None:
        """Its page with how near each modality is; None: nothing is to be explained."""
        if not isinstance(answered, _Answered) or answered.vector is None or answered.searched is None:
            return None
        searched, page, vector = answered.searched, answered.page, answered.vector
        return await asyncio.to_thread(explain.explained, self._engine, page, searched.space, searched.model, vector)

    def _keep_index(self) -> None:
        while not self._stopping.wait(INDEX_LOOK_S):
            try:
                self.build_index()
            except Exception:
                _LOG.exception("index_failed")

    def build_index(self) -> bool:
        """Build an index where one is due; gives whether one was."""
        view = self.view()
        if view is None:
            return False
        metrics.ROWS.set(view.rows)
        metrics.SCENES.set(view.scenes)
        metrics.LOOK_AGE.set(time.monotonic() - self.mirror.looked_at)
        if view.rows < index.LEAST_ROWS or (self.index is not None and not self.index.is_stale(view)):
            return False
        asked = np.stack(list(self._asked)) if self._asked else np.empty((0, view.vectors.shape[1]), np.float32)
        self.index = built = index.build(view, asked)
        metrics.INDEXED.set(built.rows)
        metrics.INDEX_RECALL.set(built.recall)
        metrics.BUILD_SECONDS.set(built.seconds)
        return True


def _page(ask: _Ask, told: Told | None, space: str, asked: _Asked, embedded: float) -> Answers:
    done = time.perf_counter()
    timings: dict[str, Any] = {"embed": 1e3 * (embedded - asked.started), "search": 1e3 * (done - embedded)}
    elapsed_ms = 1e3 * (done - asked.started)
    if told is None:
        return Answers(ask.query, (), "exact", 0, "", elapsed_ms, ("nothing can be searched yet",), timings)
    _SECONDS[told.path].observe(elapsed_ms / 1e3)
    limit, place = asked.limit, asked.place
    shown, following = told.answers[:limit], ""
    if len(told.answers) > limit:
        digest = cursor.digest(ask.query, space)
        if told.path == "approximate":
            ids = tuple(answer.scene_id for answer in shown)
            following = cursor.Cursor(place.now_s, cursor.FIRST, ids, digest).encode()
        else:
            after = (told.scores[limit - 1], shown[-1].scene_id)
            following = cursor.Cursor(place.now_s, after, place.shown, digest).encode()
    timings["rows"] = told.rows
    notes = (told.note,) if told.note else ()
    return Answers(ask.query, shown, told.path, told.matching, following, elapsed_ms, notes, timings)
