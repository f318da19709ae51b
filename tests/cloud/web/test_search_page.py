"""The search page on a real Search service: words in, scenes at their moments out, and every way to refine."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from sqlalchemy import insert, select, update

from cloud import certificates
from cloud.campaigns import book
from cloud.settings import Settings
from cloud.tables import ANALYSES, FACTS, MOMENTS, SCENES, VECTORS
from cloud.web.searching import Question, SearchAway, dial
from edge import bundle as bundles
from edge.uplink.summary import quantised

from .conftest import Stage
from .scenery import Vehicle, Visitor, Web, summary

_SERVE = (
    "import sys, importlib; from pathlib import Path; from cloud.settings import Settings\n"
    "importlib.import_module('cloud.search.server').serve("
    "Settings(Path(sys.argv[1]), sys.argv[2], search_ports=(0,)), lambda line: print(line, flush=True))"
)


@dataclass
class Asked:
    """A signed-in visitor of a cloud that searches.

    Attributes:
        first, second: scenes that the analyst looked at: siren, then a pedestrian waits; night and rain.
    """

    visitor: Visitor
    vehicle: Vehicle
    first: int
    second: int

    def answers(self, path: str, **words: str) -> list[int]:
        """Ids of the scenes on a page of answers."""
        page = self.visitor.get(path, params=words or None)
        assert page.status_code == 200, page.text
        part = page.text.split('<ol class="scenes answers">')[-1] if "scenes answers" in page.text else ""
        return [int(number) for number in re.findall(r'<h3><a href="/scenes/(\d+)\?at=', part)]


@pytest.fixture(scope="module")
def asked(stage: Stage) -> Iterator[Asked]:
    """The service, and pages that ask it."""
    if not (stage.data / "ca").exists():
        certificates.create(stage.data / "ca")
        certificates.issue_server(stage.data / "ca", ["localhost", "127.0.0.1"])
    vehicle = stage.another("car-searched")
    first, second, _ = vehicle.tell(*(summary(n, hardness=0.4 + n / 10) for n in (1, 2, 3)))
    _analysed(stage, first, [{"sound:siren": 0.97}] * 4 + [{"intent:waits": 0.95, "place:urban": 0.9}] * 4)
    _analysed(stage, second, [{"light:night": 0.99, "weather:rain": 0.9}] * 4)
    database = stage.engine.url.render_as_string(hide_password=False)
    argv = [sys.executable, "-c", _SERVE, str(stage.data), database]
    with (stage.data / "search.stderr").open("ab") as errors:
        search = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert search.stdout is not None
        line = search.stdout.readline()
        assert line.startswith("search "), (stage.data / "search.stderr").read_text()[-2000:]
        web = Web(stage.data, database, int(line.rpartition(":")[2]))
        try:
            visitor = Visitor(web.address)
            visitor.sign_in(stage.key)
            yield Asked(visitor, vehicle, first, second)
        finally:
            web.stop()
    finally:
        search.terminate()
        search.wait(30)


def test_words_find_the_moment_and_say_how_they_were_understood(asked: Asked) -> None:
    assert asked.first in asked.answers("/search", q="siren")
    page = asked.visitor.get("/search", params={"q": "pedestrian waits"}).text
    moment = re.search(rf"/scenes/{asked.first}\?at=(\d+)", page)
    assert moment is not None and int(moment.group(1)) >= 1_000_000_000 + 4 * 250_000_000
    assert "pedestrian waits" in page and "sure" in page and "fit the conditions" in page.replace("fits", "fit")
    tree = json.loads(unescape(page.split('<textarea id="tree"')[1].split(">", 1)[1].split("</textarea>")[0]))
    assert "intent:waits" in json.dumps(tree)


def test_conditions_may_be_edited_and_taken_away(asked: Asked) -> None:
    tree = json.dumps({"then": [{"has": "sound:siren"}, {"has": "intent:waits"}], "within_s": 3})
    assert asked.answers("/search", tree=tree) == [asked.first]
    both = json.dumps({"and": [{"has": "light:night"}, {"field": "vehicle", "in": ["car-searched"]}]})
    page = asked.visitor.get("/search", params={"tree": both}).text
    without = [unescape(path) for path in re.findall(r'<li>[^<]* <a href="([^"]+)"', page.split("Understood as")[1])]
    left = [json.loads(parse_qs(urlsplit(path).query)["tree"][0]) for path in without]
    assert left == [
        {"and": [{"field": "vehicle", "in": ["car-searched"]}]},
        {"and": [{"has": "light:night", "least": 0.5}]},
    ]
    assert asked.second in asked.answers(without[0])
    assert asked.answers("/search", q="siren", tree='{"and": []}')  # words alone still rank


def test_likes_move_what_is_like_them_up(asked: Asked) -> None:
    page = asked.visitor.get("/search", params={"scene": str(asked.first)}).text
    assert f'href="/search?scene={asked.first}&amp;liked={asked.second}"' in page
    tree = json.dumps({"field": "vehicle", "in": ["car-searched"]})
    assert asked.answers("/search", tree=tree, liked=str(asked.second))[0] == asked.second
    assert asked.answers("/search", tree=tree, liked=str(asked.first))[0] == asked.first
    liked = asked.visitor.get("/search", params={"tree": tree, "liked": str(asked.first)}).text
    assert 'aria-current="true">More like this' in liked


def test_a_scene_page_shows_scenes_like_it(asked: Asked, stage: Stage) -> None:
    page = asked.visitor.get(f"/scenes/{asked.first}").text
    similar = page.split('id="similar"')[1]
    assert f'href="/scenes/{asked.second}"' in similar and f'<h3><a href="/scenes/{asked.first}"' not in similar


def test_answers_are_paged_without_a_repeat(asked: Asked, stage: Stage) -> None:
    vehicle = stage.another("car-with-answers")
    ids = vehicle.tell(*(summary(n, hardness=n / 100) for n in range(1, 41)))
    tree = json.dumps({"field": "vehicle", "in": ["car-with-answers"]})
    for _ in range(100):  # the service follows the catalogue
        page = asked.visitor.get("/search", params={"tree": tree}).text
        if "40 scenes fit" in page:
            break
        time.sleep(0.1)
    seen = asked.answers("/search", tree=tree)
    more = unescape(page.split('rel="next"')[0].rsplit('href="', 1)[1].split('"')[0])
    seen += asked.answers(more)
    assert sorted(seen) == ids


def test_a_picture_may_be_the_question(asked: Asked, stage: Stage) -> None:
    jpeg = stage.visitor().get(f"/scenes/{stage.scene_ids[0]}/frames/10.jpg").content
    token = asked.visitor.token("/search")
    sent = asked.visitor.http.post("/search", data={"csrf": token}, files={"file": ("x.jpg", jpeg, "image/jpeg")})
    page = asked.visitor.get(sent.headers["location"])
    assert page.status_code == 200 and "The picture that is asked about" in page.text
    assert asked.answers(sent.headers["location"])
    wav = stage.visitor().get(f"/scenes/{stage.scene_ids[0]}/sound.wav").content
    sent = asked.visitor.http.post("/search", data={"csrf": token}, files={"file": ("x.wav", wav, "audio/wav")})
    assert asked.answers(sent.headers["location"])


def test_what_can_not_be_understood_is_said_in_one_line(asked: Asked) -> None:
    for words in ({"tree": "{"}, {"tree": '{"has": 3}'}, {"scene": "987654"}, {"liked": "x"}, {"q": "x" * 2000},
                  {"q": "siren", "cursor": "no-such"}, {"file": "image-" + "0" * 64}):  # fmt: skip
        page = asked.visitor.get("/search", params=words)
        assert page.status_code == 400, words
        assert 'role="alert"' in page.text and "Traceback" not in page.text


def test_search_that_is_away_leaves_the_other_pages(stage: Stage) -> None:
    visitor = stage.visitor()  # of the server that was started without a Search service
    page = visitor.get("/search", params={"q": "siren"})
    assert page.status_code == 503 and 'role="alert"' in page.text
    assert visitor.get(f"/scenes/{stage.scene_ids[0]}").status_code == 200


def test_who_looks_at_a_page_is_told_no_address(tmp_path: Path) -> None:
    certificates.create(tmp_path / "ca")
    certificates.issue_server(tmp_path / "ca", ["localhost", "127.0.0.1"])
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = Settings(tmp_path, search_ports=(server.getsockname()[1],))
    with dial(settings) as searching, pytest.raises(SearchAway, match=r"^Search does not answer\. Try again"):
        searching.ask(Question(text="siren"))


def test_a_question_becomes_a_campaign_that_can_be_stopped(asked: Asked, stage: Stage) -> None:
    page = asked.visitor.get("/search", params={"q": "night, not rain"}).text
    assert "Have vehicles look for more of this" in page
    fields = {"name": "Dry nights", "q": "night, not rain", "budget_mb": "300", "days": "7"}
    made = asked.visitor.post("/campaigns", "/search?q=night", **fields)
    assert made.status_code == 303, made.text
    with stage.engine.connect() as connection:
        (campaign,) = [one for one in book.listed(connection) if one.name == "Dry nights"]
    assert campaign.budget_bytes == 300_000_000 and campaign.state == "active"
    shown = asked.visitor.get(made.headers["location"]).text
    assert "night and not rain" in shown and "Stop for good" in shown
    assert asked.visitor.post(f"/campaigns/{campaign.id}/stop", made.headers["location"]).status_code == 303
    assert "Stop for good" not in asked.visitor.get(made.headers["location"]).text
    assert "Dry nights" in asked.visitor.get("/campaigns").text
    tree = json.dumps({"and": [{"has": "sound:siren"}, {"has": "sign:stop"}]})
    for words in ("", "night"):  # that say nothing of a sign, which vehicles do not tell of
        refused = asked.visitor.post("/campaigns", "/search?q=night", **(fields | {"q": words, "tree": tree}))
        assert refused.status_code == 400 and "sign:stop" in refused.text
    for wrong in (
        {"budget_mb": "0"},
        {"days": "-1"},
        {"days": "nan"},
        {"name": ""},
        {"q": ""},
        {"tree": "{"},
        {"q": "night " * 400},
    ):
        assert asked.visitor.post("/campaigns", "/search?q=night", **(fields | wrong)).status_code == 400, wrong


def test_a_campaign_asks_what_the_question_asks_or_is_not_offered(asked: Asked, stage: Stage) -> None:
    offer, refusal = "Have vehicles look for more of this", "No campaign can be made of this question"
    with stage.engine.begin() as connection:  # as the vehicle told of it
        space = bundles.load().id
        embedded = {"embedding": np.arange(1, 193, dtype=np.uint8).tobytes(), "bundle_id": space}
        connection.execute(update(SCENES).where(SCENES.c.id == asked.first).values(**embedded))

    def begun(name: str, **question: str) -> book.Campaign:
        page = asked.visitor.get("/search", params=question).text
        form = page.split('<details class="campaign">')[1].split("</form>")[0]
        fields = {key: unescape(value) for key, value in re.findall(r'name="(\w+)"[^>]* value="([^"]*)"', form)}
        made = asked.visitor.http.post("/campaigns", data=fields | ({"name": name} if name else {}))
        assert made.status_code == 303, made.text
        with stage.engine.connect() as connection:
            return book.get(connection, made.headers["location"].rsplit("/", 1)[1])

    scene = str(asked.first)
    like_it = {"said": f"scene {scene}", "modality": "scene", "weight": 1.0}
    night = {"has": "light:night", "least": 0.5}
    made = begun("nights like it", scene=scene, q="night", liked=scene)
    assert made.query["likes"] == [like_it] and made.query["predicate"] == night
    made = begun("", scene=scene)
    assert made.name == f"like scene {scene}" and made.query["likes"] == [like_it]
    bare = [{"q": q, "tree": '{"and": []}'} for q in ("siren", "night, no unicorn", "rain near:200,11,500")]
    for words in ({"q": "unicorn"}, *bare):  # nothing but words to be near to
        made = begun("", **words)
        assert [like["said"] for like in made.query["likes"]] == [words["q"]]
        assert made.query["predicate"] == {"and": []}
    assert begun("", q="nuit\u00a0: sirène").name == "nuit : sirène"  # a name is printable, and a no-break space is not
    for words in ({"q": "night", "disliked": scene}, {"q": "night, no unicorn"}):
        page = asked.visitor.get("/search", params=words).text
        assert refusal in page and offer not in page
    sent = asked.visitor.http.post(
        "/search",
        data={"csrf": asked.visitor.token("/search"), "q": "night"},
        files={"file": ("x.jpg", stage.visitor().get(f"/scenes/{stage.scene_ids[0]}/frames/9.jpg").content)},
    )
    page = asked.visitor.get(sent.headers["location"]).text
    assert refusal in page and "leave out the file" in page and offer not in page


def test_a_reading_key_begins_no_campaign(asked: Asked, stage: Stage) -> None:
    reader = Visitor(str(asked.visitor.http.base_url))
    reader.sign_in(stage.reading_key)
    assert "Have vehicles look" not in reader.get("/search", params={"q": "night"}).text
    assert reader.post("/campaigns", "/search", name="x", q="night", budget_mb="1", days="1").status_code == 403


def _analysed(stage: Stage, scene: int, moments: list[dict[str, float]]) -> None:
    """What an analyst wrote: moments a quarter of a second apart, each with a vector of the bundle's space."""
    space = bundles.load().id
    rng = np.random.default_rng(scene)
    with stage.engine.begin() as connection:
        first_ns = connection.execute(select(SCENES.c.first_ns).where(SCENES.c.id == scene)).scalar_one()
        connection.execute(insert(ANALYSES).values(scene_id=scene, model="m", space=space, report={}))
        if connection.execute(select(FACTS).where(FACTS.c.name == "searched")).first() is None:
            connection.execute(insert(FACTS).values(name="searched", value={"space": space, "model": "m"}))
        for n, labels in enumerate(moments):
            at = {"scene_id": scene, "model": "m", "instant_ns": first_ns + n * 250_000_000}
            connection.execute(insert(MOMENTS).values(**at, labels=labels))
            unit = rng.normal(size=192)
            vector, scale = quantised((unit / np.linalg.norm(unit)).astype("<f4").tobytes())
            connection.execute(insert(VECTORS).values(**at, modality="scene", space=space, vector=vector, scale=scale))
