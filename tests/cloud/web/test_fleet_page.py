"""`/fleet`: a page of vehicles at a time, by name, label and status."""

from __future__ import annotations

from urllib.parse import urlencode

from sqlalchemy import func, insert, select

from cloud.tables import FLEET, VEHICLES
from roadfuse.v1.updates_pb2 import Stage as UpdateStage

from .conftest import Stage
from .scenery import summary


def test_the_fleet_is_paged_searched_and_counted(stage: Stage) -> None:
    names = [f"fleet_{number:02d}" for number in range(30)]
    with stage.engine.begin() as connection:
        connection.execute(insert(VEHICLES), [{"name": name} for name in names])
        rows = [
            {"vehicle": name, "labels": {"site": "yard" if number < 3 else "50%"}, "stage": 0, "seen_at": func.now(),
             "state": "parked" if number % 2 else "driving"}
            for number, name in enumerate(names)
        ]  # fmt: skip
        for row in rows:
            connection.execute(insert(FLEET).values(**row))
        connection.execute(FLEET.update().where(FLEET.c.vehicle == "fleet_07").values(stage=UpdateStage.STAGE_REFUSED))
        connection.execute(VEHICLES.update().where(VEHICLES.c.name == "fleet_09").values(revoked_at=func.now()))
        connection.execute(FLEET.update().where(FLEET.c.vehicle == "fleet_11").values(seen_at=None))
    visitor = stage.visitor()

    def shown(**words: object) -> list[str]:
        page = visitor.get("/fleet?" + urlencode(words)).text
        return [name for name in names if f">{name}</a>" in page]

    first = visitor.get("/fleet?find=FLEET_").text
    assert shown(find="FLEET_") == names[:25] and "30 vehicles, from 1<" in first and 'rel="next"' in first
    assert shown(find="fleet_", page=1) == names[25:] and 'rel="prev"' in visitor.get("/fleet?find=fleet_&page=1").text
    assert shown(find="fleet_", label="site=yard") == names[:3] == shown(find="fleet_", label="site", page=0)[:3]
    assert shown(label="site=50%", page=1) == names[28:] and shown(label="site=50") == shown(label="other") == []
    of = {"find": "fleet_", "status": "driving"}
    assert shown(**of) == names[::2] and shown(**of, label="site=yard") == [names[0], names[2]]
    assert shown(find="fleet_", status="parked") == [n for n in names[1::2] if n not in ("fleet_09", "fleet_11")]
    for status, name in (("refused", "fleet_07"), ("revoked", "fleet_09"), ("silent", "fleet_11")):
        assert shown(find="fleet_", status=status) == [name]
    stage.another("fleet_gap").tell(summary(2))
    assert ">fleet_gap</a>" in visitor.get("/fleet?find=fleet_&status=missing").text
    assert len(shown(find="fleet_", status="expiring")) == 25  # none of them has a certificate
    with stage.engine.connect() as connection:
        parked = connection.execute(
            select(func.count()).select_from(FLEET).where(FLEET.c.state == "parked", FLEET.c.seen_at.is_not(None))
        ).scalar_one()
    assert f">parked ({parked - 1})</option>" in first  # without the revoked one
    assert "No vehicle is like that" in visitor.get("/fleet?find=nobody").text
    assert shown(find="fleet%") == [] and len(visitor.get("/fleet").text) < 60_000
    for words in ("status=x", "page=x", "find=%00", f"label={'x' * 201}"):
        assert visitor.get(f"/fleet?{words}").status_code == 400
