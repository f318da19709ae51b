"""A second opinion: a vision-language model behind an OpenAI-compatible server is shown pictures of a scene's peak.

What it says joins the report as an opinion, with its model's name: a caption, and those of our labels that it names.
It is never taken for the truth: its labels are no moments' labels, and words that are none of ours are dropped.
Pictures leave as small JPEGs that are encoded anew; an answer is bounded in time and size, and checked.

Ref: OpenAI, "Chat completions" (POST /v1/chat/completions), with pictures as data URLs; vLLM, llama.cpp and others
speak it.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from cloud.analyst.calls import Calls
from cloud.errors import ModelError
from cloud.labels import LABELS
from edge.drive import codec, topics
from edge.drive.reader import DriveReader
from edge.errors import DriveError
from edge.samples import Frame

KEY: Final = "ROADFUSE_VISION_LANGUAGE_KEY"
TIMEOUT_S: Final = 30.0
MOST_ANSWER_BYTES: Final = 256 << 10
MOST_CAPTION: Final = 600  # characters
# Pictures before, at and after the peak, of so many pixels at most on the longer side.
AROUND_S: Final = (-1.0, 0.0, 1.0)
LONGEST_PX: Final = 768
_QUALITY: Final = 80
_TOKENS: Final = 400
_ASK: Final = (
    "These are pictures of one driving scene, one second apart, from the car's front camera. Answer with one JSON "
    'object and nothing else: {"caption": "one or two sentences on what happens and what is risky about it", '
    '"labels": [those of this list that certainly hold]}. The list: '
)


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the model says.

    Attributes:
        model: as it calls itself, else as it was asked for.
        caption: one line.
        labels: of cloud.labels.LABELS.
        dropped: words that it gave for labels and that are none.
    """

    model: str
    caption: str
    labels: tuple[str, ...]
    dropped: int


class VisionLanguage:
    """A vision-language model on a server.

    Args:
        url: of the server, without /v1.
        model: its name there.
        key: sent as a bearer token; None: what the environment says, "" none.

    Raises:
        ModelError: the URL is none.
    """

    def __init__(self, url: str, model: str, key: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        key = os.environ.get(KEY, "") if key is None else key
        headers = {"Authorization": f"Bearer {key}"} if key else None
        self._calls = Calls(url.rstrip("/").removesuffix("/v1"), timeout_s, MOST_ANSWER_BYTES, headers)
        self.model = model

    def opinion(self, pictures: Sequence[bytes]) -> Opinion:
        """What the model says of pictures.

        Args:
            pictures: JPEG, in their order.

        Raises:
            ModelError: no answer, or none of the form that was asked for.
        """
        urls = [f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}" for picture in pictures]
        content = [{"type": "text", "text": _ASK + ", ".join(LABELS)}]
        parts: list[dict[str, Any]] = [*content, *({"type": "image_url", "image_url": {"url": url}} for url in urls)]
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": parts}],
            "response_format": {"type": "json_object"},
            "max_tokens": _TOKENS,
            "temperature": 0,
        }
        return _checked(self._calls.json("POST", "/v1/chat/completions", body), self.model)


def pictures(clip: Path, peak_ns: int) -> list[bytes]:
    """Small JPEGs of a clip before, at and after an instant; fewer where there is no picture.

    Args:
        peak_ns: vehicle monotonic clock.
    """
    found = []
    with DriveReader(clip) as drive:
        for around_s in AROUND_S:
            wanted_ns = peak_ns + round(around_s * 1e9)
            near = _nearest(drive, wanted_ns)
            if near is not None:
                found.append(_small(near))
    return found


def _nearest(drive: DriveReader, wanted_ns: int) -> NDArray[np.uint8] | None:
    reach_ns = 300_000_000
    window = (max(wanted_ns - reach_ns, 0), max(wanted_ns + reach_ns, 0))
    messages = drive.messages(topics=[topics.CAMERA], start_ns=window[0], end_ns=window[1])
    try:
        for message in sorted(messages, key=lambda one: abs(one.capture_ns - wanted_ns)):
            frame = codec.decode(message.topic, message.payload, message.sequence)
            if isinstance(frame, Frame) and frame.jpeg:
                return codec.decode_jpeg(frame.jpeg)
            if isinstance(frame, Frame) and frame.image is not None:
                return frame.image
    except DriveError:  # the analysis has said what is wrong with the clip; a picture less is no error
        pass
    return None


def _small(image: NDArray[np.uint8]) -> bytes:
    longest = max(image.shape[:2])
    if longest > LONGEST_PX:
        height, width = (max(round(side * LONGEST_PX / longest), 1) for side in image.shape[:2])
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return codec.encode_jpeg(image, _QUALITY)


def _checked(answer: Any, asked: str) -> Opinion:
    try:
        text = answer["choices"][0]["message"]["content"]
        said = json.loads(_unfenced(text))
        caption, named = said["caption"], said["labels"]
        if not isinstance(caption, str) or not isinstance(named, list):
            raise TypeError("a caption or labels of another type")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise ModelError(f"{asked}: expected an object of caption and labels, got another answer ({line})") from None
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in caption).split())[:MOST_CAPTION]
    if not line:
        raise ModelError(f"{asked}: expected a caption, got an empty one")
    known = set(LABELS)
    labels = tuple(sorted({word for word in named if isinstance(word, str) and word in known}))
    name = answer.get("model")
    return Opinion(str(name)[:120] if isinstance(name, str) else asked, line, labels, len(named) - len(labels))


def _unfenced(text: str) -> str:
    """JSON as models write it: often between lines of ```."""
    text = text.strip()
    if text.startswith("```"):
        text = text.partition("\n")[2].rpartition("```")[0]
    return text
