"""A second opinion from a server of models: asked well, and never believed further than it can be checked."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest

from cloud.analyst import calls
from cloud.analyst.vision_language import LONGEST_PX, VisionLanguage, pictures
from cloud.errors import ModelError
from edge.drive.codec import decode_jpeg

from .clips import Scene
from .model_server import Answer, Asked, of_json, serving

JPEG = b"\xff\xd8 a picture \xff\xd9"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls.Calls.__init__, "__defaults__", (None, 0.0))


def completion(content: Any, **more: Any) -> Answer:
    return of_json({"model": "seer-7b", "choices": [{"message": {"role": "assistant", "content": content}}], **more})


def said(**fields: Any) -> str:
    return json.dumps({"caption": "A pedestrian waits.", "labels": ["light:night"], **fields})


def opinion(answer: Answer | Callable[[Asked], Answer], timeout_s: float = 5.0, key: str = "") -> Any:
    with serving(answer if callable(answer) else lambda _: answer) as (url, _):
        return VisionLanguage(url, "seer", key, timeout_s).opinion([JPEG])


def test_the_question_holds_the_pictures_and_the_labels_that_may_be_said() -> None:
    with serving(lambda _: completion(said())) as (url, asked):
        told = VisionLanguage(f"{url}/v1/", "seer", "secret").opinion([JPEG, JPEG])
    assert (told.model, told.caption, told.labels, told.dropped) == (
        "seer-7b", "A pedestrian waits.", ("light:night",), 0,
    )  # fmt: skip
    (request,) = asked
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["Authorization"] == "Bearer secret"
    body = json.loads(request.body)
    text, *shown = body["messages"][0]["content"]
    assert body["model"] == "seer" and "sound:siren" in text["text"] and len(shown) == 2
    assert base64.b64decode(shown[0]["image_url"]["url"].removeprefix("data:image/jpeg;base64,")) == JPEG


def test_words_that_are_none_of_our_labels_are_dropped_and_the_caption_is_one_line() -> None:
    odd = said(caption="Look:\n\x1b[31m a  dog" + "!" * 5_000, labels=["sign:stop", "dogs", 7, None, "sign:stop"])
    told = opinion(completion(odd))
    assert told.labels == ("sign:stop",) and told.dropped == 4
    assert told.caption.startswith("Look: [31m a dog!") and len(told.caption) == 600 and told.caption.isprintable()


def test_json_between_fences_is_read() -> None:
    assert opinion(completion(f"```json\n{said()}\n```")).labels == ("light:night",)


@pytest.mark.parametrize(
    "content",
    [
        "I see a car.",
        "",
        "[]",
        "null",
        "{}",
        '{"caption": "x"}',
        '{"caption": 7, "labels": []}',
        '{"caption": "x", "labels": {"a": 1}}',
        '{"caption": " \\n ", "labels": []}',
        "[" * 100_000,
        None,
        [{"type": "text", "text": "x"}],
    ],
)
def test_another_answer_is_an_error_of_one_line(content: Any) -> None:
    with pytest.raises(ModelError) as told:
        opinion(completion(content))
    assert "\n" not in str(told.value) and len(str(told.value)) < 300


@pytest.mark.parametrize(
    "answer", [of_json({}), of_json({"choices": []}), of_json([1]), Answer(b"<html>"), Answer(b"")]
)
def test_an_answer_of_another_form_is_an_error(answer: Answer) -> None:
    with pytest.raises(ModelError, match="expected"):
        opinion(answer)


def test_a_server_that_is_busy_is_asked_again_and_one_that_refuses_is_not() -> None:
    count = 0

    def busy(_: Asked) -> Answer:
        nonlocal count
        count += 1
        return completion(said()) if count == 3 else of_json({"error": "overloaded"}, 503)

    assert opinion(busy).labels == ("light:night",) and count == 3
    with serving(lambda _: of_json({"error": "no such key"}, 401)) as (url, asked):
        with pytest.raises(ModelError, match=r"status 401: .*no such key.* \(1 attempts\)"):
            VisionLanguage(url, "seer", "").opinion([JPEG])
        assert len(asked) == 1


def test_huge_packed_and_dripping_answers_end() -> None:
    with pytest.raises(ModelError, match="at most 262144 bytes"):
        opinion(Answer(b" " * (1 << 20)))
    bomb = Answer(gzip.compress(bytes(50 << 20)), headers={"Content-Encoding": "gzip"})
    with pytest.raises(ModelError, match="not packed, got 'gzip'"):
        opinion(bomb)
    with pytest.raises(ModelError, match=r"ReadTimeout.*\(3 attempts\)"):
        opinion(Answer(b"x" * 1_000, drip_s=0.05), timeout_s=0.3)


def test_no_server_and_no_url_are_errors_of_one_line() -> None:
    with pytest.raises(ModelError, match="ConnectError"):
        VisionLanguage("http://127.0.0.1:1", "seer", "").opinion([JPEG])
    for url in ("", "file:///etc/passwd", "seer", "http://", "http://[::1"):
        with pytest.raises(ModelError, match="expected a URL"):
            VisionLanguage(url, "seer", "")


def test_a_redirect_is_not_followed() -> None:
    with serving(lambda _: Answer(b"", 302, {"Location": "http://127.0.0.1:1/"})) as (url, asked):
        with pytest.raises(ModelError, match="status 302"):
            VisionLanguage(url, "seer", "").opinion([JPEG])
        assert len(asked) == 1


def test_pictures_around_the_peak_are_small_jpegs(scene: Scene) -> None:
    shown = pictures(scene.clip, scene.summary.peak_ns)
    assert 1 <= len(shown) <= 3 and len(set(shown)) == len(shown)
    for picture in shown:
        assert max(decode_jpeg(picture).shape[:2]) <= LONGEST_PX and len(picture) < 300_000
    assert pictures(scene.clip, 0) == []
