"""The modules as engines: batch 1, named ports as a bundle's manifest says them, float ONNX graphs."""

from __future__ import annotations

import onnx
import torch
from torch import Tensor, nn

from export.lower import lower
from export.model.camera import PATCH, CameraEncoder, Found, Maps, at_cells, decode_boxes, split_maps
from export.model.contract import CLIP_STEPS, FUSE_OUTPUTS, HEIGHT_PX, INPUTS, OUTPUTS, SHAPES, WIDTH_PX
from export.model.fusion import STATE, FuseStep
from export.model.labels import MODALITIES, OBJECTS
from export.model.layers import EMBEDDING
from export.model.network import Network
from export.model.tokens import TOKENS


class CameraEngine(nn.Module):
    """uint8 NHWC picture in; unit embedding, the top objects with their kinds, and each cell's surface out."""

    def __init__(self, encoder: CameraEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.stem = patchwise(encoder.stem)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """image: (1, 384, 640, 3) uint8 BGR. Returns (1, 192), (1, 32, 7), (1, 48, 80) uint8."""
        rows, columns = HEIGHT_PX // PATCH, WIDTH_PX // PATCH
        patches = image.reshape(1, rows, PATCH, columns, PATCH * 3).permute(0, 1, 3, 2, 4)
        patches = patches.reshape(1, rows, columns, 3 * PATCH * PATCH).permute(0, 3, 1, 2)
        stem = self.stem(patches.to(torch.float32) * (1.0 / 255.0))
        seen = self.encoder.beyond(stem)
        maps = split_maps(seen.maps)
        surface = maps.surface.argmax(1).to(torch.uint8)
        return self.encoder.embedded(seen.features), objects_with_kinds(maps, seen.found), surface


def patchwise(stem: nn.Sequential) -> nn.Sequential:
    """The first convolution over patches of 4x4 pixels as one of 1x1 over their 48 bytes, as rows of pixels lie."""
    first, norm = stem[0], stem[1]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    flat = nn.Conv2d(3 * PATCH * PATCH, first.out_channels, 1, bias=False)
    with torch.no_grad():
        flat.weight.copy_(first.weight.permute(0, 2, 3, 1).reshape(flat.weight.shape))
    return nn.Sequential(flat, norm, nn.ReLU())


def objects_with_kinds(maps: Maps, found: Found) -> Tensor:
    """(batch, 32, 7): boxes as decode_boxes gives them, then the kind of a vehicle or sign, or a person's intent."""
    boxes = decode_boxes(maps, found)
    finer = torch.zeros_like(boxes[:, :, 0])
    for name, logits in (("vehicle", maps.vehicles), ("pedestrian", maps.intents), ("sign", maps.signs)):
        kind = at_cells(logits, found.cell).argmax(2).to(boxes.dtype)
        finer = torch.where(found.kind == OBJECTS.index(name), kind, finer)
    return torch.cat([boxes, finer[:, :, None]], 2)


def lower_edge(net: Network) -> dict[str, onnx.ModelProto]:
    """The five float graphs of the vehicle's bundle, by engine name."""
    modules: dict[str, nn.Module] = {
        "camera": CameraEngine(net.camera), "audio": net.audio, "motion": net.motion, "lidar": net.lidar,
    }  # fmt: skip
    graphs = {}
    for name, module in modules.items():
        dtype = torch.uint8 if name == "camera" else torch.float32
        example = torch.zeros(SHAPES[name], dtype=dtype)
        graphs[name] = lower(module, (example,), [str(INPUTS[name]["name"])], list(OUTPUTS[name]))
    unit = torch.zeros(1, EMBEDDING)
    fuse_inputs = (*[unit for _ in MODALITIES], torch.ones(1, len(MODALITIES)), torch.zeros(1, STATE))
    ports = [*MODALITIES, "presence", "state"]
    graphs["fuse"] = lower(FuseStep(net.fuse), fuse_inputs, ports, [*FUSE_OUTPUTS, "state_next"])
    return graphs


def lower_cloud(net: Network) -> dict[str, onnx.ModelProto]:
    """What search needs besides: the text tower and the clip encoder, float."""
    return {
        "text": lower(net.text, (torch.ones(1, TOKENS, dtype=torch.int64),), ["tokens"], ["embedding"]),
        "video": lower(net.clip, (torch.zeros(1, CLIP_STEPS, EMBEDDING),), ["moments"], ["embedding"]),
    }
