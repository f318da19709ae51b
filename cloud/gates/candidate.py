"""What the gates look at: a candidate's folder, the current bundle beside it, and what a release says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from cloud.gates.policy import Policy
from cloud.gates.verdict import GateRefused
from edge import bundle as bundles
from edge.bundle import Bundle
from edge.golden import FILE

if TYPE_CHECKING:
    from cloud.gates.moments import Moments
    from cloud.gates.yardstick import Yardstick

Graphs = dict[str, dict[str, onnx.ModelProto]]


@dataclass(frozen=True, slots=True)
class Release:
    """What the catalogue and the signed metadata say of the candidate.

    Attributes:
        counter: of the release.
        row: as in cloud.tables.RELEASES.
        metadata: role -> newest signed bytes of the image repository, and the roots by version as "root.1", ...
    """

    counter: int
    row: Mapping[str, Any]
    metadata: Mapping[str, bytes]


class Graphed:
    """A bundle and its graphs, read once.

    Attributes:
        bundle: verified.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._graphs: Graphs | None = None

    @property
    def graphs(self) -> Graphs:
        """Engine -> target ("file" is the engine's own) -> graph.

        Raises:
            GateRefused: bytes that are no ONNX model.
        """
        if self._graphs is None:
            self._graphs = {
                name: {
                    target: parsed(f"{name} ({target})", file.read())
                    for target, file in {FILE: spec.file, **spec.lowerings}.items()
                }
                for name, spec in self.bundle.engines.items()
            }
        return self._graphs


@dataclass(slots=True)
class Candidate:
    """One bundle before the gates.

    Attributes:
        folder: as it was given.
        current: what the fleet runs.
        hardware: classes of machines that it is meant for.
        policy: the limits.
        release: None for a folder that nobody released.
        graphed: once the first gate has loaded the bundle.
    """

    folder: Path
    current: Yardstick
    hardware: tuple[str, ...]
    policy: Policy = field(default_factory=Policy)
    release: Release | None = None
    graphed: Graphed | None = None

    @property
    def bundle(self) -> Bundle:
        """The candidate's bundle, verified; loaded by whoever asks first.

        Raises:
            BundleError: it is not whole.
        """
        if self.graphed is None:
            self.graphed = Graphed(bundles.load(self.folder))
        return self.graphed.bundle

    @property
    def graphs(self) -> Graphs:
        """Of the candidate, as in Graphed."""
        return self.own.graphs

    @property
    def own(self) -> Graphed:
        """The candidate's bundle and graphs."""
        _ = self.bundle
        assert self.graphed is not None
        return self.graphed

    def inputs(self) -> Moments:
        """Real inputs: the current bundle's where both prepare them alike."""
        from cloud.gates.moments import moments

        theirs = self.current.bundle.encoders
        if all(spec.input == theirs[name].input for name, spec in self.bundle.encoders.items() if name in theirs):
            return self.current.inputs()
        return moments(self.bundle, self.current.drives)


def parsed(what: str, content: bytes) -> onnx.ModelProto:
    """An ONNX model; nothing beside the bytes is read.

    Raises:
        GateRefused: they are none.
    """
    try:
        model = onnx.load_model_from_string(content)
        if not model.graph.node:
            raise ValueError("no node")
        return model
    except Exception as error:  # protobuf's own errors share no base
        raise GateRefused(f"{what}: expected an ONNX model, got {' '.join(str(error).split())[:120]}") from None
