"""What pages show of scenes, vehicles and jobs."""

from __future__ import annotations

import datetime
import io
import json
import re
import wave
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from sqlalchemy import insert, select, update

from cloud.jobs import Queue
from cloud.tables import ANALYSES, CERTIFICATES, MOMENTS, SCENES
from edge.drive import topics
from edge.drive.reader import DriveMessage, DriveReader

from .conftest import Stage
from .scenery import EVICTED, recut, summary


def test_the_gallery_shows_newest_first_and_pages_on_without_losing_one(stage: Stage) -> None:
    vehicle = stage.another("car-with-many")
    told = [summary(n) for n in range(1, 61)]
    for n in (7, 33):
        told[n].ClearField("recorded_at")  # those without a time come last
    ids = vehicle.tell(*told)
    visitor, path, seen = stage.visitor(), "/?vehicle=car-with-many", []
    while path:
        page = visitor.get(path).text
        seen += [int(part.split('"')[0].split("?")[0]) for part in page.split('<h3><a href="/scenes/')[1:]]
        path = (
            page.split('rel="next"')[0].rsplit('href="', 1)[1].split('"')[0].replace("&amp;", "&")
            if "Older" in page
            else ""
        )
    dated = [scene for n, scene in enumerate(ids) if n not in (7, 33)]
    assert seen == [*reversed(dated), ids[33], ids[7]]


def test_filters_leave_what_they_say(stage: Stage) -> None:
    vehicle = stage.another("car-filtered")
    easy, hard = summary(1, hardness=0.2), summary(2, hardness=0.9)
    gone = summary(3, hardness=0.5, media=EVICTED, reason="quota")
    del gone.scene_tags[:]
    hard.recorded_at.seconds = 1_790_000_000
    vehicle.tell(easy, hard, gone)
    visitor = stage.visitor()

    def left(query: str) -> list[int]:
        page = visitor.get(f"/?vehicle=car-filtered&{query}").text
        return sorted(n for n in (1, 2, 3) if f'href="/scenes/{vehicle.id_of(n)}"' in page)

    assert left("") == [1, 2, 3]
    assert left("hardness=0.5") == [2, 3]
    assert left("state=evicted") == [3] and left("state=held") == [1, 2] and left("state=here") == []
    assert left("label=light:night") == [1, 2] and left("label=sound:siren") == [1, 2, 3]
    assert left("label=place:tunnel") == []
    assert left("since=2026-01-01") == [2] and left("until=2026-01-01") == [1, 3]
    assert visitor.get("/?hardness=2").status_code == visitor.get("/?since=yesterday").status_code == 400


def test_a_vehicle_beyond_the_list_stays_chosen(stage: Stage) -> None:
    page = stage.visitor().get("/?vehicle=car-beyond-the-list&hardness=0.5").text
    assert "<option selected>car-beyond-the-list</option>" in page


def test_a_scene_that_was_only_told_of_offers_to_ask_for_its_clip(stage: Stage) -> None:
    vehicle = stage.another("car-asked")
    (scene,) = vehicle.tell(summary(1))
    visitor = stage.visitor()
    assert "Ask for the clip" in visitor.get(f"/scenes/{scene}").text
    assert visitor.post(f"/scenes/{scene}/want").headers["location"] == f"/scenes/{scene}"
    assert "was asked for the clip" in visitor.get(f"/scenes/{scene}").text
    assert vehicle.catalogue.report("car-asked", _nothing_new(vehicle.outbox))[0] == [1]
    assert f'href="/scenes/{scene}"' in visitor.get("/?state=asked").text


def test_a_scene_page_shows_its_clip(stage: Stage) -> None:
    visitor, scene = stage.visitor(), stage.scene_ids[0]
    page = visitor.get(f"/scenes/{scene}").text
    for part in ('id="player"', 'class="film"', 'id="sound"', 'class="lanes"', 'id="map"', "geo:", "clip.mcap"):
        assert part in page, part
    reel = visitor.get(f"/scenes/{scene}/reel.json").json()
    assert len(reel["frames"]) > 20 and reel["frames"] == sorted(reel["frames"])
    assert len(reel["decided"]) == len(reel["hardness"]) > 20 and reel["boxes"]
    frame = visitor.get(f"/scenes/{scene}/frames/{len(reel['frames']) - 1}.jpg").content
    assert simplejpeg.decode_jpeg_header(frame)[:2] == (384, 640)
    small = visitor.get(f"/scenes/{scene}/frames/3.jpg?size=strip").content
    assert simplejpeg.decode_jpeg_header(small)[1] == 176
    assert visitor.get(f"/scenes/{scene}/frames/{len(reel['frames'])}.jpg").status_code == 404


def test_the_moment_of_a_link_is_the_frame_that_is_shown(stage: Stage) -> None:
    visitor, scene = stage.visitor(), stage.scene_ids[0]
    frames = visitor.get(f"/scenes/{scene}/reel.json").json()["frames"]
    number = len(frames) // 2
    by_seconds = visitor.get(f"/scenes/{scene}?t={frames[number]:.3f}").text
    assert f'src="/scenes/{scene}/frames/{number}.jpg?v=' in by_seconds
    with stage.engine.connect() as connection:
        peak_ns = connection.execute(SCENES.select().where(SCENES.c.id == scene)).mappings().one()["peak_ns"]
    by_instant = visitor.get(f"/scenes/{scene}?at={peak_ns}").text
    unasked = visitor.get(f"/scenes/{scene}").text
    shown = by_instant.split('id="frame" src="')[1].split('"')[0]
    assert shown == unasked.split('id="frame" src="')[1].split('"')[0]
    assert visitor.get(f"/scenes/{scene}?at=99999999999999999999&t=x").status_code == 200


def test_the_sound_is_as_long_as_the_pictures_and_comes_in_parts(stage: Stage) -> None:
    visitor, scene = stage.visitor(), stage.scene_ids[0]
    whole = visitor.get(f"/scenes/{scene}/sound.wav")
    with wave.open(io.BytesIO(whole.content)) as sound:
        seconds = sound.getnframes() / sound.getframerate()
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
    assert abs(seconds - visitor.get(f"/scenes/{scene}/reel.json").json()["duration"]) < 0.01
    assert np.abs(samples).max() > 500
    part = visitor.get(f"/scenes/{scene}/sound.wav", headers={"Range": "bytes=44-143"})
    assert part.status_code == 206 and part.content == whole.content[44:144]


def test_a_scene_number_that_comes_to_mean_another_clip_shows_nothing_of_the_old_one(
    stage: Stage, tmp_path: Path
) -> None:
    """As after an older catalogue was put back, and gave the number out again."""
    start_ns = []

    def later(message: DriveMessage) -> DriveMessage | None:
        start_ns.append(message.capture_ns)
        return message if message.capture_ns > start_ns[0] + 1_500_000_000 else None

    vehicle = stage.another("car-put-back")
    vehicle.tell(summary(1), summary(2, sha256=bytes([1] * 32)))
    scene, other = vehicle.bring(1, stage.clip), vehicle.bring(2, recut(stage.clip, tmp_path / "clip.mcap", later))
    visitor = stage.visitor()
    addresses = re.compile(rf'"(/scenes/{scene}/[^"]*[?;]v=[^"]*)"')
    paths = [unescape(path) for path in addresses.findall(visitor.get(f"/scenes/{scene}").text)]
    paths += [unescape(path) for path in addresses.findall(visitor.get("/?vehicle=car-put-back").text)]
    assert {"frames", "reel.json", "sound.wav", "thumb.jpg"} <= {path.split("?")[0].split("/")[3] for path in paths}
    before = {path: visitor.get(path) for path in paths}
    assert all("max-age=86400" in answer.headers["cache-control"] for answer in before.values())
    with stage.engine.begin() as connection:
        (place,) = connection.execute(select(SCENES.c.object_key).where(SCENES.c.id == other)).one()
        connection.execute(update(SCENES).where(SCENES.c.id == scene).values(object_key=place))
    now = addresses.findall(visitor.get(f"/scenes/{scene}").text + visitor.get("/?vehicle=car-put-back").text)
    assert now and not set(paths) & set(map(unescape, now)), "a browser asks anew"
    for path, answer in before.items():
        after = visitor.get(path)  # whoever still has the old page
        assert after.status_code == 404 or after.content != answer.content, path
        assert after.status_code == 404 or after.headers["cache-control"] == "no-cache", path


def test_a_frame_that_is_no_picture_is_passed_over(stage: Stage, tmp_path: Path) -> None:
    numbers = []

    def spoiled(message: DriveMessage) -> DriveMessage:
        numbers.append(message.topic == topics.CAMERA)
        if sum(numbers) in (1, 20) and numbers[-1]:
            return message._replace(payload=message.payload.replace(b"\xff\xd8\xff", b"\0\0\0"))
        return message

    vehicle = stage.another("car-with-odd-frames")
    vehicle.tell(summary(1))
    scene = vehicle.bring(1, recut(stage.clip, tmp_path / "clip.mcap", spoiled))
    visitor = stage.visitor()
    frames = visitor.get(f"/scenes/{scene}/reel.json").json()["frames"]
    whole = visitor.get(f"/scenes/{stage.scene_ids[0]}/reel.json").json()["frames"]
    assert len(frames) == len(whole) - 2
    page = visitor.get(f"/scenes/{scene}?t=0").text
    pictures = [unescape(path) for path in re.findall(r'<img[^>]* src="(/scenes/[^"]*)"', page)]
    assert len(pictures) > 10
    for path in (*pictures, f"/scenes/{scene}/thumb.jpg", *(f"/scenes/{scene}/frames/{n}.jpg" for n in range(25))):
        assert visitor.get(path).status_code == 200, path


def test_the_clip_that_is_downloaded_is_the_clip(stage: Stage, tmp_path: Path) -> None:
    answer = stage.visitor().get(f"/scenes/{stage.scene_ids[0]}/clip.mcap")
    assert "attachment" in answer.headers["content-disposition"]
    path = tmp_path / "clip.mcap"
    path.write_bytes(answer.content)
    with DriveReader(path) as drive:
        assert drive.complete and "/camera" in drive.topics


def test_a_clip_that_can_not_be_read_is_said_to_be(stage: Stage, tmp_path: Path) -> None:
    vehicle = stage.another("car-broken")
    broken = tmp_path / "clip"
    broken.write_bytes(b"no clip at all" * 100)
    vehicle.tell(summary(1))
    scene = vehicle.bring(1, broken)
    visitor = stage.visitor()
    page = visitor.get(f"/scenes/{scene}")
    assert page.status_code == 200 and "the clip can&#39;t be read: expected an MCAP file" in page.text
    assert str(stage.data) not in page.text
    for part in ("thumb.jpg", "frames/0.jpg", "sound.wav", "reel.json"):
        assert visitor.get(f"/scenes/{scene}/{part}").status_code == 404
    assert visitor.get("/").status_code == 200


def test_what_the_analyst_found_is_on_the_timeline(stage: Stage) -> None:
    scene = stage.scene_ids[0]
    visitor = stage.visitor()
    assert "The cloud&#39;s analyst" not in visitor.get(f"/scenes/{scene}").text
    with stage.engine.begin() as connection:
        row = connection.execute(SCENES.select().where(SCENES.c.id == scene)).mappings().one()
        connection.execute(insert(ANALYSES).values(scene_id=scene, model="m", space=row["bundle_id"], report={}))
        connection.execute(
            insert(MOMENTS),
            [
                {"scene_id": scene, "model": "m", "instant_ns": row["first_ns"] + n * 250_000_000, "labels": labels}
                for n, labels in enumerate([{"intent:waits": 0.9}] * 8 + [{"intent:waits": 0.1}] * 4)
            ],
        )
    page = visitor.get(f"/scenes/{scene}").text
    assert "The cloud&#39;s analyst" in page and "pedestrian waits" in page
    assert f'href="/scenes/{scene}"' in visitor.get("/?label=intent:waits").text


def test_a_missing_scene_stands_out_in_the_fleet(stage: Stage) -> None:
    vehicle = stage.another("car-with-a-gap")
    vehicle.tell(summary(1), summary(4))
    visitor = stage.visitor()
    row = _row(visitor.get("/fleet?find=with-a-gap").text, ">car-with-a-gap<")
    assert 'class="n missing bad">2' in row and "number 2, 3" in row
    vehicle.tell(summary(2), summary(3))
    assert 'class="n missing good">0' in _row(visitor.get("/fleet?find=with-a-gap").text, ">car-with-a-gap<")


def test_a_certificate_that_ends_soon_stands_out_in_the_fleet(stage: Stage) -> None:
    stage.another("car-expiring")
    now = datetime.datetime.now(datetime.timezone.utc)
    with stage.engine.begin() as connection:
        of = {"vehicle": "car-expiring", "pem": b"", "serial": "abc", "expires_at": now + datetime.timedelta(days=12.2)}
        connection.execute(insert(CERTIFICATES).values(**of))
    page = stage.visitor().get("/fleet?find=car-expiring").text
    assert 'class="bad"' in _row(page, ">car-expiring<") and "in 12 days" in _row(page, ">car-expiring<")
    with stage.engine.begin() as connection:
        connection.execute(
            update(CERTIFICATES)
            .where(CERTIFICATES.c.serial == "abc")
            .values(expires_at=now + datetime.timedelta(days=90))
        )
    assert 'class="bad"' not in _row(stage.visitor().get("/fleet?find=car-expiring").text, ">car-expiring<")


def test_jobs_are_shown_cancelled_and_tried_again(stage: Stage) -> None:
    queue, visitor = Queue(stage.engine), stage.visitor()
    job = queue.put("re-embed", "all", {"space": "s"})
    lease = queue.take(["re-embed"])
    assert lease is not None
    lease.progress("reads the clip", 0.42)
    row = _row(visitor.get("/jobs").text, f"{job} <small>re-embed")
    assert "running" in row and 'value="0.42"' in row and "reads the clip 42 %" in row
    assert "reads the clip 42 %" in visitor.get("/jobs/table?state=running&before=").text
    assert visitor.post(f"/jobs/{job}/cancel", "/jobs").headers["location"] == "/jobs"
    assert queue.job(job).state == "cancelled"
    assert visitor.post(f"/jobs/{job}/retry", "/jobs?state=cancelled", state="cancelled").status_code == 303
    assert queue.job(job).state == "queued"
    assert visitor.post("/jobs/987654321/cancel", "/jobs").status_code == 404


def test_the_analysis_of_a_scene_says_how_far_it_is(stage: Stage) -> None:
    queue, visitor = Queue(stage.engine), stage.visitor()
    scene = stage.scene_ids[-1]
    assert "Waits for its turn" in visitor.get(f"/scenes/{scene}/progress").text
    lease = queue.take(["analyse"])
    assert lease is not None
    lease.progress("looks at pictures", 0.5)
    assert "looks at pictures, 50 %" in visitor.get(f"/scenes/{lease.job.subject}/progress").text
    lease.fail("the clip is <b>odd</b>", retry=False)
    page = visitor.get(f"/scenes/{lease.job.subject}").text
    assert "the clip is &lt;b&gt;odd&lt;/b&gt;" in page
    lease_error = json.dumps("the clip is <b>odd</b>")
    assert lease_error not in page


def _row(page: str, of: str) -> str:
    return next(row for row in page.split("<tr") if of in row)


def _nothing_new(outbox: bytes) -> Any:
    from cloud.report import Told

    return Told(outbox, 1, {}, {})


def test_a_report_shows_what_happened_and_where_the_vehicle_was_wrong(stage: Stage) -> None:
    scene, visitor = stage.scene_ids[0], stage.visitor()
    with stage.engine.begin() as connection:
        row = connection.execute(SCENES.select().where(SCENES.c.id == scene)).mappings().one()
        at = {"instant_ns": str(row["peak_ns"]), "at_s": 1.0}
        report = {
            "caption": {"en": "A siren can be heard.", "de": "Eine Sirene ist zu hören.", **at},
            "labels": {"sound:siren": 0.98, "place:tunnel": 0.9},
            "mean": {"sound:siren": 0.4, "place:tunnel": 0.1},
            "events": [{"label": "sound:siren", "onset_s": 1.0, "end_s": 2.5, "probability": 0.98, **at}],
            "evidence": [{"label": "sound:siren", "probability": 0.98, "modality": "audio", **at}],
            "redaction": {"face_regions": 3, "plate_regions": 2, "sound_covered_s": 1.5, "faces": ""},
            "agreement": {
                "agreed": 0.9,
                "differences": [{"label": "light:night", "edge_said": True, "edge": 0.7, "analyst": 0.03, **at}],
            },
        }
        key = {"scene_id": scene, "model": "reported", "space": row["bundle_id"]}
        later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
        connection.execute(insert(ANALYSES).values(**key, report=report, made_at=later))
        moment = {"scene_id": scene, "model": "reported", "labels": {"sound:siren": 0.98}}
        for n in range(8):
            connection.execute(insert(MOMENTS).values(**moment, instant_ns=row["first_ns"] + n * 250_000_000))
    page = visitor.get(f"/scenes/{scene}").text
    assert "A siren can be heard." in page and "Agrees with the vehicle in 90 %" in page
    assert "0:01.0 to 0:02.5, 98 %" in page and "98 %, by audio" in page
    assert (
        "Said night <small>70 % on board, 3 % by the analyst" in page and f'href="?at={row["peak_ns"]}#player"' in page
    )
    assert "3 faces, 2 plates, 1.5 s of voices covered. No detector looked for real faces." in page
    labels = page.split('aria-label="Labels"')[1].split("</ul>")[0]
    assert "siren" in labels and "tunnel" not in labels  # a siren by its highest moment, a tunnel by its mean
    track = visitor.get(f"/scenes/{scene}/subtitles.vtt?language=de")
    assert track.headers["content-type"].startswith("text/vtt") and track.text.startswith("WEBVTT")
    assert "[Sirene]" in track.text and "00:00:01.000 --> 00:00:02.500" in track.text
    assert visitor.get(f"/scenes/{scene}/subtitles.vtt?language=xx").status_code == 400
    assert 'srclang="fr"' in page
