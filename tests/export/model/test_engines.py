"""The camera's engine over patches is the network over pictures, and its objects carry their finer kinds."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the export tier is not installed: no torch")

from edge.heads import parse_heads  # noqa: E402
from export.evaluation.runner import open_engines  # noqa: E402
from export.lower import lower  # noqa: E402
from export.model.camera import MAP_SIZES, CameraEncoder, find_objects, split_maps  # noqa: E402
from export.model.contract import FUSE_OUTPUTS, GRID, HEADS, OUTPUTS  # noqa: E402
from export.model.engines import CameraEngine, objects_with_kinds  # noqa: E402
from export.model.labels import INTENTS, OBJECTS, SIGN_KINDS, VEHICLE_KINDS, fact_indices  # noqa: E402
from export.training.language import facts_from, random_facts  # noqa: E402


def test_the_engine_over_patches_is_the_network_over_pictures() -> None:
    torch.manual_seed(0)
    encoder = CameraEncoder().eval()
    for module in encoder.modules():  # as if trained: no batch norm is the identity
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    model = lower(CameraEngine(encoder), (torch.zeros(1, 384, 640, 3, dtype=torch.uint8),), ["image"], ["e", "o", "l"])
    picture = np.random.default_rng(0).integers(0, 256, (1, 384, 640, 3), dtype=np.uint8)
    embedding, _, lanes = open_engines({"camera": model.SerializeToString()})["camera"].run(None, {"image": picture})
    with torch.no_grad():
        wanted, maps = encoder(torch.from_numpy(picture).permute(0, 3, 1, 2).float() / 255.0)
    np.testing.assert_allclose(embedding, wanted.numpy(), atol=1e-4)
    assert (lanes == split_maps(maps).surface.argmax(1).numpy()).mean() > 0.999
    assert lanes.dtype == np.uint8


def test_a_peak_becomes_one_box_with_its_kind_where_it_lies() -> None:
    maps = torch.full((1, sum(MAP_SIZES), *GRID), -9.0)
    parts = split_maps(maps)
    parts.box[:] = torch.tensor([0.0, 0.0, float(np.log(0.1)), float(np.log(0.2))])[None, :, None, None]
    for name, row, column in (("sign", 10, 20), ("pedestrian", 30, 60), ("vehicle", 40, 8)):
        parts.objects[0, OBJECTS.index(name), row, column] = 4.0
    parts.signs[0, SIGN_KINDS.index("stop"), 10, 20] = 5.0
    parts.intents[0, INTENTS.index("crosses"), 30, 60] = 5.0
    parts.vehicles[0, VEHICLE_KINDS.index("bus"), 40, 8] = 5.0
    rows = objects_with_kinds(parts, find_objects(parts))[0, :3].numpy()
    by_class = {OBJECTS[int(row[0])]: row for row in rows}
    assert SIGN_KINDS[int(by_class["sign"][6])] == "stop"
    assert INTENTS[int(by_class["pedestrian"][6])] == "crosses"
    assert VEHICLE_KINDS[int(by_class["vehicle"][6])] == "bus"
    np.testing.assert_allclose(by_class["sign"][2:6], [20.5 / 80 - 0.05, 10.5 / 48 - 0.1, 0.1, 0.2], atol=1e-5)


def test_every_head_has_an_output_and_is_one_that_the_vehicle_knows() -> None:
    camera = set(OUTPUTS["camera"])
    roles = {role for roles in OUTPUTS.values() for role in roles} | set(FUSE_OUTPUTS)
    assert set(parse_heads(HEADS, roles, camera)) == set(HEADS)


def test_facts_survive_their_indices() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        row = random_facts(rng)
        assert fact_indices(facts_from(row)) == row.tolist()
