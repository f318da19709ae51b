"""`/search`: words, a picture, a sound or a scene in; scenes out, with the question as it was understood, to be edited.

Every question is an address: what is uploaded is kept for a while under its digest, and likes are scene numbers.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from typing import Any, Final
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.responses import Response

from cloud.campaigns.book import MAX_NAME
from cloud.errors import QueryError
from cloud.search.predicate import ANY, And, Predicate, from_json, to_json
from cloud.search.understand import MAX_CHARACTERS, understand
from cloud.web import scenes
from cloud.web.searching import Question, SearchAway
from cloud.web.spoken import spoken
from cloud.web.visit import Visit

PAGE: Final = 24
MAX_TREE: Final = 32_768
MAX_LIKED: Final = 32
_DIGEST: Final = re.compile("(image|audio)-[0-9a-f]{64}")
_IDS: Final = re.compile(r"[0-9]{1,18}(,[0-9]{1,18})*")
# The first bytes of what encoders read.
_IMAGES: Final = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_SOUNDS: Final = (b"RIFF", b"fLaC", b"OggS")


def search(visit: Visit) -> Response:
    """The page; a file that is posted leads to the address of its question."""
    if visit.request.method == "POST":
        return _uploaded(visit)
    asked = {name: visit.words.get(name, "") for name in ("q", "tree", "file", "scene", "liked", "disliked")}
    asked = {name: value.strip() for name, value in asked.items() if value.strip()}
    content: dict[str, Any] = {
        "asked": asked,
        "answers": None,
        "found": {},
        "problem": "",
        "tree": asked.get("tree", ""),
    }
    content |= {"chips": [], "older": "", "liked": (), "disliked": (), "status": 200, "address": _address(asked)}
    if asked:
        content |= _answered(visit, asked)
    status = content.pop("status")
    return visit.page("search.html", status, **content)


def _answered(visit: Visit, asked: dict[str, str]) -> dict[str, Any]:
    liked: tuple[int, ...] = ()
    disliked: tuple[int, ...] = ()
    try:
        liked, disliked = ids(asked.get("liked", "")), ids(asked.get("disliked", ""))
        question = _question(visit, asked, liked, disliked)
        answers = visit.site.searching.ask(question)
    except QueryError as error:
        return {"problem": str(error), "status": 400, "liked": liked, "disliked": disliked}
    except SearchAway as error:
        return {"problem": str(error), "status": 503, "liked": liked, "disliked": disliked}
    with visit.site.engine.connect() as connection:
        found = scenes.several(connection, [answer.scene_id for answer in answers.answers])
    predicate = answers.query.predicate
    return {
        "answers": answers,
        "found": {scene.id: scene for scene in found},
        "tree": _pretty(predicate),
        "chips": _chips(asked, predicate),
        "older": _address({**asked, "cursor": answers.cursor}) if answers.cursor else "",
        "liked": liked,
        "disliked": disliked,
        "campaign": _campaign_name(asked),
        "left_out": _left_out(asked, question.predicate),
        "marks": {scene.id: _marks(asked, liked, disliked, scene.id) for scene in found},
    }


def _question(visit: Visit, asked: dict[str, str], liked: tuple[int, ...], disliked: tuple[int, ...]) -> Question:
    text, tree, file = asked.get("q", ""), asked.get("tree", ""), asked.get("file", "")
    if len(text) > MAX_CHARACTERS or len(tree) > MAX_TREE:
        raise QueryError(
            f"expected at most {MAX_CHARACTERS} characters of words and {MAX_TREE} of conditions, got more"
        )
    uploads: dict[str, bytes] = {}
    if file:
        if not _DIGEST.fullmatch(file):
            raise QueryError(f"expected a file that was uploaded, got {file[:40]!r}")
        uploads[file.partition("-")[0]] = _kept(visit, file)
    scene = ids(asked.get("scene", ""))
    return Question(
        text=text,
        predicate=_tree(tree) if tree else None,
        image=uploads.get("image", b""),
        sound=uploads.get("audio", b""),
        scene_id=scene[0] if scene else 0,
        liked=liked,
        disliked=disliked,
        cursor=visit.words.get("cursor", "")[:4_096],
        limit=PAGE,
    )


def _uploaded(visit: Visit) -> Response:
    """Keep the file, and go where it is asked about."""
    asked = {name: visit.words.get(name, "").strip() for name in ("q", "tree")}
    if "file" not in visit.files:
        return visit.back(_address(asked))
    _, content = visit.files["file"]
    kind = "image" if content.startswith(_IMAGES) else "audio" if content.startswith(_SOUNDS) else ""
    if not kind:
        raise QueryError("expected a JPEG or PNG picture, or a WAV, FLAC or Ogg sound, got another file")
    name = f"{kind}-{hashlib.sha256(content).hexdigest()}"
    visit.site.uploads.content(name, lambda: content)
    return visit.back(_address({**asked, "file": name}))


def _kept(visit: Visit, name: str) -> bytes:
    def gone() -> bytes:
        raise QueryError("expected a file that was uploaded a while ago at most; upload it again")

    return visit.site.uploads.content(name, gone)


def upload(visit: Visit) -> Response:
    """A picture that is asked about, as it was uploaded."""
    name = f"image-{visit.request.path_params['digest']}"
    if not _DIGEST.fullmatch(name):
        raise HTTPException(404)
    content = _kept(visit, name)
    kind = "image/png" if content.startswith(_IMAGES[1]) else "image/jpeg"
    return Response(content, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})


def _tree(text: str) -> Predicate:
    try:
        return from_json(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise QueryError(f"expected conditions as JSON, got: {str(error)[:120]}") from None


def _pretty(predicate: Predicate) -> str:
    return "" if predicate == ANY else json.dumps(to_json(predicate), indent=2, ensure_ascii=False)


def _chips(asked: dict[str, str], predicate: Predicate) -> list[tuple[str, str]]:
    """Each condition that must hold, in words, and the address of the question without it."""
    parts = predicate.parts if isinstance(predicate, And) else (predicate,)
    chips = []
    for i, part in enumerate(parts):
        rest = And(parts[:i] + parts[i + 1 :])
        chips.append((spoken(part), _address({**asked, "tree": json.dumps(to_json(rest), separators=(",", ":"))})))
    return chips


def _left_out(asked: dict[str, str], predicate: Predicate | None) -> str:
    """What a campaign can't say of the question; "" where it carries all of it.

    Args:
        predicate: of the question.
    """
    if "file" in asked:
        return "the file"
    if "disliked" in asked:
        return "what is marked Less"
    if predicate == ANY:
        return ""  # the words are an example as a whole, and are not understood
    denied = understand(asked.get("q", ""), time.time()).denied
    return f"'no {denied}'" if denied else ""


def _campaign_name(asked: dict[str, str]) -> str:
    """What a campaign of the question is called if nobody says better: printable, as it must be."""
    said = " ".join(asked.get("q", "").split()) or (f"like scene {asked['scene']}" if "scene" in asked else "")
    return "".join(filter(str.isprintable, said))[:MAX_NAME].strip()


def _marks(asked: dict[str, str], liked: tuple[int, ...], disliked: tuple[int, ...], scene_id: int) -> tuple[str, str]:
    """Addresses of the question with this scene liked, or not; each takes its own word back."""
    more = tuple(sorted(set(liked) ^ {scene_id}))
    less = tuple(sorted(set(disliked) ^ {scene_id}))
    others_liked, others_disliked = set(liked) - {scene_id}, set(disliked) - {scene_id}
    return (
        _address({**asked, "liked": _joined(more), "disliked": _joined(others_disliked)}),
        _address({**asked, "liked": _joined(others_liked), "disliked": _joined(less)}),
    )


def _joined(ids: Any) -> str:
    return ",".join(map(str, sorted(ids)))


def ids(text: str) -> tuple[int, ...]:
    """Numbers of scenes, as an address has them.

    Raises:
        QueryError: they are none, or too many.
    """
    if not text:
        return ()
    if not _IDS.fullmatch(text) or text.count(",") >= MAX_LIKED:
        raise QueryError(f"expected at most {MAX_LIKED} numbers of scenes, got {text[:40]!r}")
    return tuple(map(int, text.split(",")))


def _address(asked: dict[str, str]) -> str:
    query = urlencode({name: value for name, value in asked.items() if value})
    return f"/search?{query}" if query else "/search"
