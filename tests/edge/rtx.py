"""TensorRT-RTX: the TensorRT family's real parser and builder, without a GPU. Tests skip where it is not installed."""

from __future__ import annotations

import re
from typing import Any

import pytest

rtx: Any = pytest.importorskip(
    "tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (pip install -e '.[rtx]', x86-64 Linux)"
)
_TENSOR = re.compile(r"\{ Name: (?P<name>.*?), Dimensions: \[(?P<sizes>[\d,]*)\].*?Datatype: (?P<type>\w+)")
_LAYER = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>.*?), Inputs: \[(?P<inputs>.*?)\], Constants: \[(?P<constants>.*?)\], "
    r"Outputs: \[(?P<outputs>.*?)\], TacticName: .*?, Metadata: (?P<metadata>.*)$"
)


class Builds:
    """`rtx` with a log that is kept: its builder tells there, layer by layer, what it built.

    The engine inspector tells the same, but needs a GPU to load the plan.
    """

    def __init__(self) -> None:
        self.log: list[str] = []
        log = self.log

        class Logger(rtx.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                rtx.ILogger.__init__(self)

            def __init_subclass__(cls) -> None:
                kept = cls.log

                def both(self: Any, severity: Any, message: str) -> None:
                    log.append(message)
                    kept(self, severity, message)

                cls.log = both

            def log(self, severity: Any, message: str) -> None: ...

        self.ILogger = Logger

    def __getattr__(self, name: str) -> Any:
        return getattr(rtx, name)

    def layers(self) -> list[dict[str, Any]]:
        """Of the last build, with the inspector's keys."""
        told = next(message for message in reversed(self.log) if message.startswith("Layers:"))
        return [_layer(line) for line in told.splitlines() if line.startswith("Name: ")]


def _layer(line: str) -> dict[str, Any]:
    found = _LAYER.match(line)
    assert found is not None, line
    sides = {key.capitalize(): _tensors(found[key]) for key in ("inputs", "constants", "outputs")}
    return {"Name": found["name"], "LayerType": found["kind"], "Metadata": found["metadata"], **sides}


def _tensors(text: str) -> list[dict[str, Any]]:
    return [
        {
            "Name": tensor["name"],
            "Dimensions": [int(n) for n in tensor["sizes"].split(",") if n],
            "Datatype": tensor["type"],
        }
        for tensor in _TENSOR.finditer(text)
    ]
