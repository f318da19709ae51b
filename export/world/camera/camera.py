"""The camera: one scene into one picture, and where each body is in it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.world.camera.bodywork import vehicle
from export.world.camera.figures import person
from export.world.camera.film import Film
from export.world.camera.ground import Ground
from export.world.camera.lens import Lens
from export.world.camera.light import sun_direction
from export.world.camera.model import Model
from export.world.camera.painter import Painter, Placed, Seen
from export.world.camera.shadow import cast_shadows
from export.world.camera.sky import Sky
from export.world.camera.structures import canopy, structure
from export.world.camera.surface import Surface
from export.world.journey import Journey
from export.world.scene import Body, Fixture, Scene
from export.world.town import Town
from export.world.weather import Weather

TREE_SIGHT_M, SMALL_SIGHT_M = 150.0, 110.0


@dataclass(frozen=True, slots=True)
class Shot:
    """picture: (height, width, 3) uint8 BGR. seen: where each shape is. surface: (48, 80) uint8, ground by class."""

    picture: NDArray[np.uint8]
    seen: list[Seen]
    surface: NDArray[np.uint8]


class Camera:
    """Renders scenes of one journey."""

    def __init__(
        self, seed: int, town: Town, journey: Journey, weather: Weather, width_px: int, height_px: int
    ) -> None:
        self._look = town.look
        self.lens = Lens.of_size(width_px, height_px)
        self._weather = weather
        self._sky = Sky(seed, weather, width_px, self.lens.focal_px, rows=int(0.56 * height_px))
        self._ground = Ground(seed, town.look, journey, weather.snow, self.lens)
        self._surface = Surface(self._ground)
        self._painter = Painter(self.lens, town.look.signs)
        self._film = Film(seed, town, width_px, height_px, weather)
        self._models: dict[int, Model] = {}

    def render(self, scene: Scene, frame: int) -> Shot:
        """The picture of a scene, and what can be seen in it."""
        air, pose = scene.air, scene.pose
        picture = np.empty((self.lens.height_px, self.lens.width_px, 3), np.uint8)
        lamps = self._lamps(scene)
        covered = scene.place == "tunnel"
        self._sky.draw(picture, air, pose.heading_rad, self.lens.horizon_px(pose.pitch_rad))
        self._ground.draw(picture, pose, scene.station_m, air, lamps)
        sun = sun_direction(self._weather.sun_azimuth_rad, self._weather.sun_elevation_rad, pose.heading_rad)
        cast_shadows(picture, scene, self.lens, sun)
        placed = self._placed(scene, is_round=False)
        seen, hidden = self._painter.paint(picture, placed, pose, air, sun, lamps)
        self._film.finish(picture, frame, air, covered)
        if frame % 200 == 0:
            self._forget(scene)
        return Shot(picture, seen, self._surface.cells(scene, hidden))

    def drawn(self, scene: Scene) -> list[Placed]:
        """What `render` draws of a scene, and what it would draw behind: for other sensors to see the same shapes."""
        return self._placed(scene, is_round=True)

    def _placed(self, scene: Scene, is_round: bool) -> list[Placed]:
        bodies = (body for body in scene.bodies if is_round or self._ahead(body))
        return [*self._fixtures(scene, is_round), *(self._body(body, scene) for body in bodies)]

    def _ahead(self, body: Body) -> bool:
        return body.x_m > -6.0 and (body.kind != "pedestrian" or body.x_m < SMALL_SIGHT_M)

    def _fixtures(self, scene: Scene, is_round: bool) -> list[Placed]:
        placed = []
        for fixture in scene.fixtures:
            thing = fixture.thing
            if thing.kind == "parked":
                continue
            if thing.kind == "tree":
                if (fixture.x_m < 0.5 and not is_round) or fixture.x_m > TREE_SIGHT_M:
                    continue
                view = math.atan2(fixture.y_m, fixture.x_m - self.lens.forward_m)
                placed.append(Placed(-thing.id, self._tree(fixture), fixture.x_m, fixture.y_m, view))
                continue
            if thing.kind in ("rail", "lamp", "sign", "post") and fixture.x_m > SMALL_SIGHT_M:
                continue
            lit = ("street",) if scene.air.lamps > 0.3 else ()
            plate = thing.variant if thing.kind == "sign" else ""
            identity = thing.id if thing.kind == "sign" else -thing.id
            placed.append(
                Placed(identity, self._structure(fixture), fixture.x_m, fixture.y_m, fixture.turn_rad, lit, plate)
            )
        return placed

    def _body(self, body: Body, scene: Scene) -> Placed:
        if body.kind == "pedestrian":
            view = math.atan2(body.y_m, body.x_m - self.lens.forward_m)
            model = person(body.look, body.size_m[2], body.walked_m, body.intent, body.turn_rad, view, self._look)
            return Placed(body.id, model, body.x_m, body.y_m, 0.0)
        if body.id not in self._models:
            self._models[body.id] = vehicle(body.variant, body.look, body.size_m, self._look)
        lit: tuple[str, ...] = ()
        parked = body.id >= 20_000
        if scene.air.lamps > 0.1 and not parked:
            lit = ("head", "tail")
        elif body.braking:
            lit = ("tail",)
        if body.siren:
            phase = int(scene.time_s * 7.0 + body.look % 7) % 2
            lit = (*lit, f"beacon{phase}")
        return Placed(body.id, self._models[body.id], body.x_m, body.y_m, body.turn_rad, lit)

    def _structure(self, fixture: Fixture) -> Model:
        key = -fixture.thing.id
        if key not in self._models:
            self._models[key] = structure(fixture.thing, self._look, self._weather.snow)
        return self._models[key]

    def _tree(self, fixture: Fixture) -> Model:
        """Trees always face the camera: their model looks along -x, turned by the view."""
        key = -fixture.thing.id
        if key not in self._models:
            self._models[key] = canopy(fixture.thing, 0.0, self._look, self._weather.snow)
        return self._models[key]

    def _lamps(self, scene: Scene) -> NDArray[np.float64]:
        if scene.air.lamps <= 0.3:
            return np.empty((0, 2))
        rows = [
            (f.x_m + 1.5 * math.cos(f.turn_rad), f.y_m + 1.5 * math.sin(f.turn_rad))
            for f in scene.fixtures
            if f.thing.kind == "lamp" and f.x_m < 80.0
        ]
        return np.array(rows).reshape(-1, 2)

    def _forget(self, scene: Scene) -> None:
        """Drops the models of what is no longer near."""
        near = {-f.thing.id for f in scene.fixtures} | {b.id for b in scene.bodies}
        self._models = {key: model for key, model in self._models.items() if key in near}
