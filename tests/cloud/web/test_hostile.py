"""What a hostile vehicle, visitor or address may try; pages stay pages."""

from __future__ import annotations

import random
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import insert

from cloud.tables import ANALYSES, SCENES
from edge.drive import topics
from edge.drive.reader import DriveReader
from edge.drive.writer import DriveWriter
from roadfuse.v1 import decision_pb2

from .conftest import Stage
from .scenery import EVICTED, Visitor, summary

CASES = 60
ODD = (
    *("%00", "%ff", "%ed%a0%80", "%F0%9F%92%A9", "-1", "1e999", "nan", "9" * 40, "..", "%2e%2e%2f", "''", "{}", "[]"),
    *("%0d%0aSet-Cookie:x=1", "true", "", "%20", "١", "1.5", "x" * 300),
)
NAMES = (
    *("vehicle", "state", "label", "hardness", "since", "until", "cursor", "t", "at", "q", "tree", "file", "scene"),
    *("liked", "disliked", "size", "language", "before", "to", "find", "part", "page", "all", "status"),
)
PATHS = (
    *("/", "/jobs", "/jobs/table", "/search", "/sign-in", "/fleet", "/{}", "/static/{}", "/campaigns/{}"),
    *("/rollouts", "/rollouts/{}", "/rollouts/{}/now", "/rollouts/{}/log", "/rollouts/{}/stop"),
    *("/scenes/{}", "/scenes/{}/thumb.jpg", "/scenes/{}/progress", "/search/image-{}", "/scenes/KNOWN"),
    *("/scenes/KNOWN/frames/{}.jpg", "/scenes/KNOWN/at/{}.jpg", "/scenes/KNOWN/subtitles.vtt"),
)
FORMS = (
    "/sign-in",
    "/scenes/{}/want",
    "/jobs/{}/retry",
    "/campaigns",
    "/search",
    "/rollouts/{}/command",
    "/rollouts/{}/stop",
)
SCRIPT = "<script>alert(1)</script>"
INJECTIONS = ("' OR 1=1 --", '"; DROP TABLE scenes; --', "1) UNION SELECT digest FROM api_keys --", "%27", "\\", "$1")


def test_markup_in_a_vehicles_words_is_text(stage: Stage) -> None:
    vehicle = stage.another(f"car {SCRIPT}")
    told = summary(1, media=EVICTED, reason=f'"><img src=x onerror=alert(1)>{SCRIPT}')
    told.scene_tags.add(name=SCRIPT, probability=0.99)
    told.sound_events.add(name="\" onmouseover=alert(1) x='", probability=0.99)
    told.scores.add(name=SCRIPT, value=1.0, weight=1.0)
    (scene,) = vehicle.tell(told)
    visitor = stage.visitor()
    script = quote(SCRIPT)
    for path in ("/", f"/scenes/{scene}", f"/fleet?find={script}", f"/?vehicle=car%20{script}", f"/?label={script}"):
        page = visitor.get(path)
        assert page.status_code == 200
        assert "<script>alert" not in page.text and "<img src=x" not in page.text and '" onmouseover' not in page.text
    assert "&lt;script&gt;" in visitor.get(f"/scenes/{scene}").text


def test_markup_in_an_analysts_words_is_text(stage: Stage) -> None:
    vehicle = stage.another("car-analysed")
    (scene,) = vehicle.tell(summary(1))
    report = {
        "caption": SCRIPT,
        "labels": {SCRIPT: 0.9},
        "events": [{"label": SCRIPT}],
        "agreement": {"differences": SCRIPT},
    }
    with stage.engine.begin() as connection:
        connection.execute(insert(ANALYSES).values(scene_id=scene, model=SCRIPT, space="s", report=report))
    for path in (f"/scenes/{scene}", "/?vehicle=car-analysed"):
        page = stage.visitor().get(path)
        assert page.status_code == 200 and "<script>alert" not in page.text


@pytest.mark.parametrize(
    "report",
    [
        {"caption": 3},
        {"labels": []},
        {"events": {}},
        {"agreement": []},
        {"caption": {"en": 1}},
        {"moments": "x"},
        {"events": [1, {"label": 2}]},
    ],
)
def test_a_report_that_is_none_breaks_no_page(stage: Stage, report: dict[str, object]) -> None:
    vehicle = stage.another(f"car-odd-{abs(hash(str(report)))}")
    (scene,) = vehicle.tell(summary(1))
    with stage.engine.begin() as connection:
        connection.execute(insert(ANALYSES).values(scene_id=scene, model="m", space="s", report=report))
    assert stage.visitor().get(f"/scenes/{scene}").status_code == 200


def test_decisions_that_are_no_numbers_break_no_player(stage: Stage, tmp_path: Path) -> None:
    whole, odd = tmp_path / "whole.mcap", tmp_path / "odd.mcap"
    whole.write_bytes(stage.visitor().get(f"/scenes/{stage.scene_ids[0]}/clip.mcap").content)
    with DriveReader(whole) as drive, DriveWriter(odd, {}) as made:
        for message in drive.messages([topics.CAMERA, topics.DECISION]):
            payload = message.payload
            if message.topic == topics.DECISION:
                decision = decision_pb2.Decision.FromString(payload)
                decision.hardness = float("nan")
                del decision.objects[:]
                for name, probability in (("odd", float("inf")), ("odd", float("nan")), ("car", 0.75)):
                    decision.objects.add(name=name, probability=probability, width_px=9.0, height_px=9.0)
                payload = decision.SerializeToString()
            made.copy(message._replace(payload=payload))
    vehicle = stage.another("car-without-numbers")
    vehicle.tell(summary(1))
    scene = vehicle.bring(1, odd)
    visitor = stage.visitor()
    assert visitor.get(f"/scenes/{scene}").status_code == 200
    told = visitor.get(f"/scenes/{scene}/reel.json").json()
    assert set(told["hardness"]) == {0.0}
    assert {box[1] for boxes in told["boxes"].values() for box in boxes} == {"car"}


def test_paths_lead_to_no_file_of_the_server(stage: Stage) -> None:
    visitor = stage.visitor()
    for path in (
        "/static/../site.py",
        "/static/%2e%2e/site.py",
        "/static/..%2f..%2f..%2fpyproject.toml",
        "/static//etc/passwd",
        "/static/%00",
        "/scenes/..%2f..%2fweb-secret",
        "/scenes/1/frames/..%2f0.jpg",
        "/scenes/1/frames/-1.jpg",
        "/scenes/%31%27/thumb.jpg",
        "/scenes/99999999999999999999/thumb.jpg",
        "/scenes/١/thumb.jpg",
        "/search/image-..%2f..%2fweb-secret",
        "/campaigns/..%2f..%2fetc",
    ):
        answer = visitor.get(path)
        assert answer.status_code == 404, path
        assert "import" not in answer.text and "root:" not in answer.text


def test_sql_in_a_question_is_a_word(stage: Stage) -> None:
    visitor = stage.visitor()
    with stage.engine.connect() as connection:
        before = len(connection.execute(SCENES.select()).all())
    for word in INJECTIONS:
        for name in ("vehicle", "label"):
            page = visitor.get("/", params={name: word})
            assert page.status_code == 200 and "No scene is like that" in page.text
        for name in ("state", "hardness", "since", "cursor"):
            assert visitor.get("/", params={name: word}).status_code == 400
        assert visitor.get("/jobs", params={"before": word}).status_code == 400
        assert visitor.get("/scenes/" + quote(word, safe="")).status_code == 404
        assert visitor.get("/campaigns/" + quote(word, safe="")).status_code == 404
    with stage.engine.connect() as connection:
        assert len(connection.execute(SCENES.select()).all()) == before


def test_nothing_of_the_server_shows_in_an_error(stage: Stage) -> None:
    visitor = stage.visitor()
    for path in ("/?cursor=999999999999999999-1", "/?vehicle=%00", "/?since=0001-01-01", "/?label=" + "x" * 500,
                 "/?hardness=nan", "/?cursor=x-", "/jobs?state=%F0%9F%92%A9", "/search?tree=" + "[" * 5000,
                 "/search?liked=" + ",".join("1" * 300), "/search?tree=%7B%22and%22:1%7D",
                 "/search?file=image-../../x"):  # fmt: skip
        answer = visitor.get(path)
        assert answer.status_code in (400, 503), path
        assert "Traceback" not in answer.text and ".py" not in answer.text and "SELECT" not in answer.text
    assert "Traceback" not in (stage.data / "web.stderr").read_text()


def test_a_form_that_is_too_large_is_refused_before_it_is_read(stage: Stage) -> None:
    visitor = stage.visitor()
    token = visitor.token()
    big = {"csrf": token, "key": "x" * (1 << 20)}
    assert visitor.http.post("/sign-in", data=big).status_code == 413

    def endless() -> object:
        yield f"csrf={token}&key=".encode()
        for _ in range(64):
            yield b"x" * (64 << 10)

    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert visitor.http.post("/sign-in", content=endless(), headers=kind).status_code == 413
    assert visitor.http.post("/sign-in", content=b"{}", headers={"Content-Type": "application/json"}).status_code == 415
    many = "&".join(f"f{n}=1" for n in range(500))
    assert visitor.http.post("/sign-in", content=many, headers=kind).status_code == 400


def test_an_uploaded_file_is_known_by_what_it_is_not_by_its_name(stage: Stage) -> None:
    visitor = stage.visitor()
    token = visitor.token("/search")
    for name, content in (("../../../etc/passwd.jpg", b"root:x"), ("x.png", SCRIPT.encode()), ("a.svg", b"<svg/>")):
        answer = visitor.http.post("/search", data={"csrf": token}, files={"file": (name, content, "image/jpeg")})
        assert answer.status_code == 400 and "expected a JPEG or PNG picture" in answer.text
    kept = visitor.http.post(
        "/search", data={"csrf": token}, files={"file": (f"../{SCRIPT}.jpg", b"\xff\xd8\xff" + bytes(64), "text/html")}
    )
    assert kept.status_code == 303 and kept.headers["location"].startswith("/search?file=image-")
    assert (stage.data / "web-cache" / "uploads" / kept.headers["location"].removeprefix("/search?file=")).is_file()
    picture = visitor.get(kept.headers["location"].replace("?file=", "/"))
    assert picture.headers["content-type"] == "image/jpeg" and picture.headers["x-content-type-options"] == "nosniff"


def test_a_hostile_host_or_method_gets_a_page(stage: Stage) -> None:
    visitor = stage.visitor()
    assert visitor.http.request("DELETE", "/").status_code == 405
    assert visitor.http.request("POST", "/fleet", data={"csrf": visitor.token()}).status_code == 405
    stranger = Visitor(stage.web.address)
    assert stranger.get("/", headers={"Host": "evil.example"}).headers["location"].startswith("/sign-in")


def test_the_cache_stays_within_its_bound(tmp_path: Path) -> None:
    from cloud.web.cache import Cache

    cache = Cache(tmp_path, most_bytes=100_000)
    for n in range(60):
        cache.content(f"{n}.jpg", lambda: bytes(5_000))
    left = sorted(int(path.stem) for path in tmp_path.iterdir())
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 105_000
    assert left and left[-1] == 59


def test_no_odd_address_or_form_breaks_a_page(stage: Stage) -> None:
    """A seeded walk: odd bytes in every place where words may stand."""
    rng, visitor = random.Random(5), stage.visitor()
    token, known = visitor.token(), str(stage.scene_ids[0])
    odd = [*ODD, known]
    for _ in range(CASES):
        path = rng.choice(PATHS).replace("KNOWN", known).format(rng.choice(odd))
        query = "&".join(f"{rng.choice(NAMES)}={rng.choice(odd)}" for _ in range(rng.randrange(4)))
        answer = visitor.get(f"{path}?{query}")
        assert answer.status_code in (200, 303, 307, 400, 404, 503), (path, query, answer.status_code)
        assert "set-cookie" not in answer.headers or path == "/sign-in"
        fields = "&".join(f"{rng.choice([*NAMES, 'key', 'name', 'days'])}={rng.choice(odd)}" for _ in range(3))
        place = rng.choice(FORMS).format(rng.choice(odd))
        kind = {"Content-Type": rng.choice(["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])}
        posted = visitor.http.post(place, content=f"csrf={token}&{fields}", headers=kind)
        assert posted.status_code in (303, 400, 403, 404, 405, 429), (place, fields, posted.status_code)
    assert visitor.get("/").status_code == 200
    assert "page_failed" not in (stage.data / "web.stderr").read_text()
