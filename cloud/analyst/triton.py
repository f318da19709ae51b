"""An analyst's network on a Triton server, or any other that speaks the Open Inference Protocol (KServe v2) over HTTP.

The model there takes `embeddings` FP32 [t, 4, 192], `presence` FP32 [t, 4] and `boxes` FP32 [t, 16, 7] and gives
`probabilities` FP32 [t, columns], in the order of this version's columns (export/model/analyst_outputs.py), and
`embedding` FP32 [t, 192].
Tensors travel as bytes behind a JSON head (the binary tensor extension), or in the JSON where the server prefers it.

Ref: KServe, "Open Inference Protocol", v2; Triton, "Binary Tensor Data Extension".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import httpx
import numpy as np
from numpy.typing import NDArray

from cloud.analyst.calls import Calls
from cloud.analyst.network import DIMENSIONS, Looked, label_of_column
from cloud.errors import ModelError
from export.model.analyst_outputs import COLUMNS, STEP_S

F32 = NDArray[np.float32]
HEAD: Final = "Inference-Header-Content-Length"
TIMEOUT_S: Final = 30.0
MOST_ANSWER_BYTES: Final = 64 << 20
# More moments at once than any clip has.
MOST_MOMENTS: Final = 4_096


class Triton:
    """A model on a server.

    Args:
        url: http://host:port.
        model: its name.

    Raises:
        ModelError: no such server or model.
    """

    def __init__(self, url: str, model: str, timeout_s: float = TIMEOUT_S) -> None:
        self._calls = Calls(url, timeout_s, MOST_ANSWER_BYTES)
        self._path = f"/v2/models/{model}"
        told = self._calls.json("GET", self._path)
        if not isinstance(told, dict) or told.get("name") != model:
            raise ModelError(f"{url}: expected the model {model!r}, got {str(told)[:120]}")
        self.identity = json.dumps([model, told.get("versions"), told.get("platform")], sort_keys=True)

    def infer(self, tensors: Mapping[str, F32], wanted: Mapping[str, tuple[int, ...]]) -> dict[str, F32]:
        """One call.

        Args:
            tensors: inputs by name.
            wanted: shape of each output by name.

        Raises:
            ModelError: the server refuses, or answers something else.
        """
        inputs, body = [], b""
        for name, values in tensors.items():
            raw = np.ascontiguousarray(values, "<f4").tobytes()
            size = {"binary_data_size": len(raw)}
            inputs.append({"name": name, "shape": list(values.shape), "datatype": "FP32", "parameters": size})
            body += raw
        outputs = [{"name": name, "parameters": {"binary_data": True}} for name in wanted]
        head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
        headers = {HEAD: str(len(head)), "Content-Type": "application/octet-stream"}
        answer, content = self._calls.ask("POST", f"{self._path}/infer", head + body, headers)
        return _read(answer, content, wanted)


class TritonNetwork:
    """An analyst's network (cloud/analyst/network.py) that runs on a server.

    Args:
        url, model: of it.
        space: id of the bundle whose embeddings it is said to read.

    Raises:
        ModelError: no such server or model.
    """

    def __init__(self, url: str, model: str, space: str, timeout_s: float = TIMEOUT_S) -> None:
        self._triton = Triton(url, model, timeout_s)
        self.space, self.step_s = space, STEP_S
        self.model = hashlib.sha256(f"triton {self._triton.identity}".encode()).hexdigest()
        self._columns = [(i, label) for i, label in enumerate(map(label_of_column, COLUMNS)) if label]

    def look(self, embeddings: F32, presence: NDArray[np.bool_], boxes: F32) -> Looked:
        """What a clip shows; see AnalystNetwork.look.

        Raises:
            ModelError: the server can't be reached, or answers something else.
        """
        count = len(embeddings)
        if not 1 <= count <= MOST_MOMENTS:
            raise ModelError(f"expected 1 to {MOST_MOMENTS} moments, got {count}")
        given = {"embeddings": embeddings, "presence": presence.astype(np.float32), "boxes": boxes}
        wanted = {"probabilities": (count, len(COLUMNS)), "embedding": (count, DIMENSIONS)}
        found = self._triton.infer(given, wanted)
        said, vectors = found["probabilities"], found["embedding"]
        lengths = np.linalg.norm(vectors, axis=1)
        if not (np.isfinite(said).all() and (said >= 0).all() and (said <= 1).all()):
            raise ModelError("triton: expected probabilities of 0..1, got others")
        if not (np.abs(lengths - 1.0) <= 0.02).all():
            raise ModelError("triton: expected embeddings of unit length, got others")
        return Looked([{label: float(row[i]) for i, label in self._columns} for row in said], vectors)


def _read(answer: httpx.Response, content: bytes, wanted: Mapping[str, tuple[int, ...]]) -> dict[str, F32]:
    """The outputs of an answer; nothing in it is believed before it fits."""
    try:
        length = int(answer.headers.get(HEAD, len(content)))
        if not 0 <= length <= len(content):
            raise ValueError(f"a head of {length} bytes in {len(content)}")
        told: Any = json.loads(content[:length])
        at, found = length, {}
        for output in told["outputs"]:
            name, shape = str(output["name"]), tuple(map(int, output["shape"]))
            if name not in wanted:
                continue
            if output["datatype"] != "FP32" or shape != wanted[name]:
                raise ValueError(f"{name} as {output['datatype']}{list(shape)}, expected FP32{list(wanted[name])}")
            size = (output.get("parameters") or {}).get("binary_data_size")
            if size is None:
                found[name] = np.asarray(output["data"], np.float32).reshape(shape)
            else:
                values = np.frombuffer(content[at : at + int(size)], "<f4")
                found[name], at = values.astype(np.float32).reshape(shape), at + int(size)
        missing = wanted.keys() - found.keys()
        if missing:
            raise ValueError(f"no {', '.join(sorted(missing))}")
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ModelError(f"triton: expected an answer to an inference, got {line}") from None
    return found
