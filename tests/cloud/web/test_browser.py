"""The pages in a real browser: no errors, by keyboard alone, at phone width, without scripts, to be read aloud."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import insert

from cloud.releases import stops
from cloud.rollouts import book
from cloud.tables import ANALYSES, CAMPAIGNS, MOMENTS
from edge.drive import topics
from edge.drive.reader import DriveReader

from .conftest import Stage
from .rollout_scenery import Drive
from .scenery import recut, summary

# As long as a name may be, and nowhere to be broken.
LONG = "V" + "x" * 63
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1360, "height": 860}
# Contrast of every text with what is behind it, by WCAG 2.2; pictures and what is hidden do not count.
CONTRAST = """() => {
  const parse = (c) => { const m = c.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => [r, g, b].map((v) => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3]));
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.unshift(parse(getComputedStyle(e).backgroundColor));
    return layers.reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const low = [];
  for (const node of document.querySelectorAll("main *, header *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    const box = node.getBoundingClientRect();
    if (!own || box.width < 2 || box.height < 2 || node.closest("svg, .view, option, .length, .hidden")) continue;
    const [a, b] = [over(parse(getComputedStyle(node).color), behind(node)), behind(node)].map(light);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const words = node.textContent.trim().slice(0, 30);
    if (ratio < 4.5) low.push(`${node.tagName}.${node.className} "${words}" ${ratio.toFixed(2)}`);
  }
  return low;
}"""
# Of all controls: those without a name for who hears the page.
UNNAMED = """() => {
  const controls = "a[href], button, input:not([type=hidden]), select, textarea, audio, [tabindex]";
  const said = (e) => (e.ariaLabel || "").trim() || (e.textContent || "").trim() || e.tagName === "AUDIO"
    || [...(e.labels || [])].some((label) => label.textContent.trim()) || e.querySelector("img[alt]:not([alt=''])");
  const shown = (e) => e.id !== "main" && e.getClientRects().length && !e.classList.contains("film-scroll");
  const nameless = [...document.querySelectorAll(controls)].filter((e) => shown(e) && !said(e));
  return nameless.map((e) => e.outerHTML.slice(0, 120));
}"""


class Window:
    """A page of the browser, signed in, that remembers every complaint."""

    def __init__(self, context: Any, stage: Stage) -> None:
        self.complaints: list[str] = []
        self.page = context.new_page()
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._heard)
        self.page.on("requestfailed", lambda request: self._failed(request))
        self._address = stage.web.address
        self.open("/sign-in")
        self.page.fill("#key", stage.key)
        self.page.press("#key", "Enter")
        self.page.wait_for_selector("nav[aria-label=Pages]")

    def open(self, path: str) -> Any:
        """Go there."""
        answer = self.page.goto(self._address + path)
        self.page.wait_for_load_state("load")
        return answer

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.text} {message.location}")

    def _failed(self, request: Any) -> None:
        if "ERR_ABORTED" not in (request.failure or ""):  # a player lets go of what it no longer needs
            self.complaints.append(f"{request.url} {request.failure}")


@pytest.fixture(scope="module")
def rollouts(stage: Stage) -> Iterator[list[Drive]]:
    """One that was stopped by evidence, and one that is in its shadow."""
    bad = Drive(stage.engine, "b1", 71, 40, {"old": 0.6, "new": 15.0}, refuse=2)
    assert bad.on(12) == "stopped"
    young = Drive(stage.engine, "b2", 72, 20, {"old": 1.0, "new": 1.0}, now_s=bad.now_s)
    assert young.on(0.2) == "running"
    yield [bad, young]
    with stage.engine.begin() as connection:
        if not book.get(connection, young.id).is_over:
            book.command(connection, young.id, book.Command("abort", "ann"))
    young.control.cycle()
    for one in (bad, young):
        one.close()


@pytest.fixture(scope="module")
def pages(stage: Stage, rollouts: list[Drive]) -> list[str]:
    """Every sort of page."""
    vehicle = stage.another("car-in-the-browser")
    vehicle.tell(*(summary(n) for n in range(1, 31)), last=33)
    scene = stage.scene_ids[0]
    told = f"/scenes/{vehicle.id_of(1)}"
    (of_long,) = stage.another(LONG).tell(summary(1))
    now = datetime.datetime.now(datetime.timezone.utc)
    asks = {"query": {"text": LONG, "likes": [{"said": LONG}]}, "probe": b"", "budget_bytes": 1}
    with stage.engine.begin() as connection:
        connection.execute(insert(CAMPAIGNS).values(id="long", name=LONG, expires_at=now, stopped_at=now, **asks))
    of_names = [f"/scenes/{of_long}", f"/?vehicle={LONG}", f"/fleet?find={LONG}", "/campaigns/long"]
    of_rollouts = [path for one in rollouts for path in (f"/rollouts/{one.id}", f"/rollouts/{one.id}/stop")]
    of_rollouts += ["/rollouts", f"/rollouts/{rollouts[0].id}/log", f"/rollouts/{rollouts[1].id}/abort"]
    plain = ["/", f"/scenes/{scene}", told, "/search", "/fleet", "/jobs", "/campaigns"]
    return [*plain, *of_names, *of_rollouts, "/scenes/987654"]


@pytest.fixture(scope="module", params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    """Light and dark."""
    return str(request.param)


@pytest.fixture(scope="module", params=["desk", "phone"])
def window(request: pytest.FixtureRequest, chromium: Any, stage: Stage, scheme: str) -> Iterator[Window]:
    """A signed-in window of each sort."""
    size = PHONE if request.param == "phone" else DESK
    context = chromium.new_context(color_scheme=scheme, viewport=size, reduced_motion="reduce")
    yield Window(context, stage)
    context.close()


def test_no_page_has_an_error_a_sideways_scroll_a_nameless_control_or_faint_text(
    window: Window, pages: list[str]
) -> None:
    for path in pages:
        answer = window.open(path)
        assert answer.status == (404 if path.endswith("987654") else 200), path
        if answer.status == 404:
            window.complaints.clear()  # the browser notes the status itself
        window.page.wait_for_timeout(150)
        assert window.complaints == [], path
        wide = window.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, path
        assert window.page.evaluate(UNNAMED) == [], path
        assert window.page.evaluate(CONTRAST) == [], path
        assert window.page.locator("h1").count() == 1, path
        assert window.page.locator("main").count() == 1 and window.page.locator("html[lang=en]").count() == 1
        assert window.page.locator("img:not([alt])").count() == 0


@pytest.fixture
def desk(chromium: Any, stage: Stage) -> Iterator[Window]:
    """A window of its own."""
    context = chromium.new_context(viewport=DESK)
    yield Window(context, stage)
    context.close()


def test_the_first_tab_skips_to_the_content_and_focus_is_always_seen(desk: Window, stage: Stage) -> None:
    desk.open("/")
    order = []
    for _ in range(14):
        desk.page.keyboard.press("Tab")
        order.append(
            desk.page.evaluate(
                "(() => { const e = document.activeElement; const s = getComputedStyle(e);"
                " const card = e.closest('.scene'); const c = card ? getComputedStyle(card) : s;"
                " return [e.textContent.trim() || e.name, s.outlineStyle !== 'none' || c.outlineStyle !== 'none'] })()"
            )
        )
    names = [name for name, _ in order]
    assert names[0] == "Skip to the content" and names[1] == "roadfuse"
    assert names[2:8] == ["Scenes", "Search", "Fleet", "Rollouts", "Jobs", "Campaigns"] and names[8] == "Sign out"
    assert all(is_seen for _, is_seen in order), order
    desk.open("/")
    desk.page.keyboard.press("Tab")
    desk.page.keyboard.press("Enter")
    assert desk.page.evaluate("document.activeElement.id") == "main"


def test_the_film_is_walked_by_arrow_keys(desk: Window, stage: Stage) -> None:
    desk.open(f"/scenes/{stage.scene_ids[0]}?t=0")
    desk.page.wait_for_selector(".controls:not([hidden])")
    desk.page.locator(".film a[aria-current]").focus()
    before = desk.page.get_attribute("#frame", "src")
    for _ in range(3):
        desk.page.keyboard.press("ArrowRight")
    assert desk.page.evaluate("[...document.querySelectorAll('.film a')].indexOf(document.activeElement)") == 3
    assert desk.page.get_attribute("#frame", "src") != before
    assert desk.page.locator(".film a[tabindex='0']").count() == 1  # one stop for the Tab key
    moment = desk.page.get_attribute(".film a[aria-current]", "data-at")
    assert abs(float(desk.page.input_value("#seek")) - float(moment or -1)) < 0.06
    desk.page.keyboard.press(".")
    stepped = desk.page.get_attribute("#frame", "src")
    desk.page.keyboard.press(",")
    assert desk.page.get_attribute("#frame", "src") != stepped
    assert desk.complaints == []


@pytest.fixture(scope="module")
def silent(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> int:
    """A scene whose clip has no sound, and what the analyst saw and heard in it before that was lost."""
    vehicle = stage.another("car-without-sound")
    path = tmp_path_factory.mktemp("silent") / "clip.mcap"
    recut(stage.clip, path, lambda message: message if message.topic != topics.AUDIO else None)
    with DriveReader(path) as drive:
        first_ns = next(iter(drive.messages([topics.CAMERA]))).capture_ns
    vehicle.tell(summary(1))
    scene = vehicle.bring(1, path)
    of = {"scene_id": scene, "model": "m"}
    at = [{"label": "light:night", "onset_s": 1.0, "end_s": 2.0, "instant_ns": str(first_ns + 10**9), "at_s": 1.0}]
    moments = [
        {**of, "instant_ns": first_ns + n * 250_000_000, "labels": {"light:night": 0.99, "intent:waits": n // 6 * 0.9}}
        for n in range(12)
    ]
    with stage.engine.begin() as connection:
        connection.execute(insert(ANALYSES).values(**of, space="s", report={"events": at}))
        connection.execute(insert(MOMENTS), moments)
    return scene


def test_subtitles_follow_the_player_also_without_sound(desk: Window, silent: int) -> None:
    desk.open(f"/scenes/{silent}?t=0")
    page = desk.page
    page.wait_for_selector(".controls:not([hidden])")
    assert page.locator("#sound").count() == 0 and page.locator(".tracks a[hreflang]").count() == 4
    _until(desk, lambda: page.inner_text("#subtitle") != "")
    first = page.inner_text("#subtitle")
    assert "pedestrian" not in first
    page.click("#play")
    _until(desk, lambda: "pedestrian" in page.inner_text("#subtitle"))
    page.click("#play")
    page.select_option("#language", "de")
    _until(desk, lambda: "Fußgänger" in page.inner_text("#subtitle"))
    page.select_option("#language", "")
    assert not page.locator("#subtitle").is_visible()
    assert desk.complaints == []


def test_an_instant_brings_the_player_into_view_or_opens_a_tab(window: Window, silent: int) -> None:
    window.open(f"/scenes/{silent}?t=0")
    page = window.page
    page.wait_for_selector(".controls:not([hidden])")
    instant = page.locator(".findings a.instant").first
    for link in (instant, page.locator(".film a").nth(2)):
        with page.context.expect_page() as opened:
            link.click(modifiers=["ControlOrMeta"])
        assert "#player" in opened.value.url and float(page.input_value("#seek")) == 0
        opened.value.close()
    instant.scroll_into_view_if_needed()
    instant.click()
    assert abs(float(page.input_value("#seek")) - 1) < 0.06
    seen = "(() => { const r = document.getElementById('frame').getBoundingClientRect(); return [r.top, r.bottom] })()"
    _until(window, lambda: page.evaluate(seen)[0] >= 0 and page.evaluate(seen)[1] <= page.viewport_size["height"])
    assert window.complaints == []


def test_keys_of_a_form_control_are_its_own(desk: Window, silent: int) -> None:
    desk.open(f"/scenes/{silent}?t=1")
    page = desk.page
    page.wait_for_selector(".controls:not([hidden])")
    page.focus("#language")
    before = page.input_value("#seek")
    page.keyboard.press("End")
    assert page.input_value("#language") == "fr" and page.input_value("#seek") == before
    page.keyboard.press("Home")
    assert page.input_value("#language") == "" and page.input_value("#seek") == before


def test_it_plays_pictures_in_time_and_stops(desk: Window, stage: Stage) -> None:
    desk.open(f"/scenes/{stage.scene_ids[0]}?t=0")
    desk.page.wait_for_selector(".controls:not([hidden])")
    first = desk.page.get_attribute("#frame", "src")
    desk.page.click("#play")
    _until(desk, lambda: float(desk.page.input_value("#seek")) > 0.5)
    _until(desk, lambda: desk.page.get_attribute("#frame", "src") != first)
    assert desk.page.get_attribute("#play", "aria-pressed") == "true"
    assert desk.page.inner_text("#play").strip() == "Pause"
    desk.page.click("#play")
    assert desk.page.get_attribute("#play", "aria-pressed") == "false"
    assert desk.page.evaluate("document.getElementById('sound').paused")
    boxes = desk.page.locator("#boxes")
    desk.page.uncheck("#show-boxes")
    assert not boxes.is_visible()
    assert desk.complaints == []


def _until(window: Window, holds: Callable[[], bool]) -> None:
    """Waits, up to a minute; the pages' policy lets no test evaluate conditions in them."""
    for _ in range(600):
        if holds():
            return
        window.page.wait_for_timeout(100)
    raise AssertionError("it never came")


def test_a_click_on_the_timeline_goes_there(desk: Window, stage: Stage) -> None:
    desk.open(f"/scenes/{stage.scene_ids[0]}?t=0")
    desk.page.wait_for_selector(".lanes.live")
    plot = desk.page.locator(".lane.hardness .plot")
    box = plot.bounding_box()
    plot.click(position={"x": box["width"] * 0.5, "y": box["height"] / 2})
    seconds, whole = float(desk.page.input_value("#seek")), float(desk.page.get_attribute("#seek", "max") or 0)
    assert abs(seconds / whole - 0.5) < 0.05
    assert desk.page.get_attribute("#cursor", "x1") == desk.page.get_attribute("#cursor", "x2")


def test_without_scripts_everything_but_the_player_works(chromium: Any, stage: Stage) -> None:
    vehicle = stage.another("car-without-scripts")
    (told,) = vehicle.tell(summary(1))
    context = chromium.new_context(java_script_enabled=False, viewport=PHONE)
    window = Window(context, stage)
    page = window.page
    window.open("/")
    page.select_option("select[name=vehicle]", "car-without-scripts")
    page.click("button:has-text('Filter')")
    page.wait_for_url("**vehicle=car-without-scripts**")
    assert page.locator(".scene").count() == 1
    page.click("text=Ask for the clip")
    page.wait_for_selector(".badge:has-text('asked for')")
    page.click(f"h3 a[href='/scenes/{told}']")
    page.wait_for_url(f"**/scenes/{told}")
    assert "was asked for the clip" in page.inner_text("main")
    window.open(f"/scenes/{stage.scene_ids[0]}")
    assert not page.locator(".controls").is_visible() and page.locator("audio[controls]").is_visible()
    before = page.get_attribute("#frame", "src")
    page.locator(".film a:not([aria-current])").first.click()
    page.wait_for_url(re.compile(r"\?t=[0-9.]+#player$"))
    assert page.get_attribute("#frame", "src") != before
    page.click("text=Sign out")
    page.wait_for_selector("#key")
    assert window.complaints == []
    context.close()


def test_a_vehicle_is_found_in_a_large_fleet(window: Window, stage: Stage, rollouts: list[Drive]) -> None:
    window.open("/fleet")
    page, table = window.page, "table.fleet tbody th"
    assert page.locator(table).count() == 25
    page.get_by_role("link", name="Further").click()
    page.wait_for_selector("text=from 26")
    name = rollouts[0].names[-1]
    page.get_by_label("Name holds").fill(name)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**find={name}*")
    assert page.locator(table).count() == 1 and name in (page.locator(table).text_content() or "")
    page.get_by_label("Status").select_option("revoked")
    page.get_by_role("button", name="Find").click()
    page.wait_for_selector("text=No vehicle is like that")
    page.get_by_role("link", name="Clear").click()
    page.wait_for_selector(table)
    assert window.complaints == []


def test_what_a_vehicle_calls_itself_runs_in_no_browser(desk: Window, stage: Stage) -> None:
    vehicle = stage.another("<img src=x onerror=document.title='ran'>")
    told = summary(1)
    told.scene_tags.add(name="<script>document.title='ran'</script>", probability=0.99)
    (scene,) = vehicle.tell(told)
    for path in ("/", f"/scenes/{scene}", "/fleet"):
        desk.open(path)
        desk.page.wait_for_timeout(100)
        assert "ran" not in desk.page.title()
    assert desk.complaints == []


def test_the_policy_stops_what_would_be_injected(desk: Window, stage: Stage) -> None:
    desk.open("/")
    desk.page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "document.title = 'ran'";
          const styled = document.createElement("div");
          styled.innerHTML = '<b style="color:red" onclick="1">x</b>';
          document.body.append(script, styled);
        }"""
    )
    assert "ran" not in desk.page.title()
    assert any("Content Security Policy" in complaint for complaint in desk.complaints)


def test_the_evidence_curve_is_drawn_against_its_boundary(window: Window, rollouts: list[Drive]) -> None:
    window.open(f"/rollouts/{rollouts[0].id}")
    page = window.page
    place = page.locator(".curve").bounding_box()
    stop = page.locator(".evidence-curve .stop line").bounding_box()
    against = page.locator(".evidence-curve path.against").bounding_box()
    end = page.locator(".evidence-curve circle.against").bounding_box()
    assert place["width"] > 300 and place["height"] > 200
    assert against["width"] > 0.5 * place["width"] and place["y"] < stop["y"] < place["y"] + place["height"] / 2
    assert against["y"] <= stop["y"] + 2 and end["y"] <= stop["y"] + 2, "it ends beyond the boundary"
    assert end["x"] + end["width"] >= place["x"] + place["width"] - 8
    drawing = page.get_by_role("img", name="Evidence on release 71 over time")
    assert drawing.count() == 1 and "the release is stopped at" in (page.text_content("#curve-said") or "").lower()
    assert not page.locator("#curve-table table").is_visible()
    page.locator("#curve-table summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("#curve-table table").is_visible() and "stopped: worse" in page.inner_text("#curve-table")
    assert window.complaints == []


def test_a_rollout_is_paused_and_followed_by_its_page(desk: Window, rollouts: list[Drive]) -> None:
    one = rollouts[1]
    desk.open(f"/rollouts/{one.id}")
    page = desk.page
    page.fill(".acts input[name=why]", "rain & <b>hail</b>")
    page.click("button:has-text('Pause')")
    page.wait_for_selector("button:has-text('Resume')")
    assert "Paused by alice: rain & <b>hail</b>." in page.inner_text("#now")
    page.locator("#vehicles-title").click()  # whoever is in the part that changes is left alone
    page.locator("#record-1 summary").click()
    page.locator("input[name=find]").focus()
    one.command("resume", by="bob")
    _until(desk, lambda: "In the shadow" in page.inner_text("#now"))
    _until(desk, lambda: page.locator("button:has-text('Pause')").count() == 1)
    assert "resume by bob" in page.inner_text("#now")
    assert page.locator("#record-1[open]").count() == 1, "what was opened stays open"
    assert desk.complaints == []


def test_an_emergency_stop_asks_before_it_acts_and_needs_no_mouse(
    desk: Window, stage: Stage, rollouts: list[Drive]
) -> None:
    one = rollouts[1]
    desk.open(f"/rollouts/{one.id}")
    page, keys = desk.page, desk.page.keyboard
    page.locator(".acts a:has-text('Emergency stop')").focus()
    keys.press("Enter")
    page.wait_for_url("**/stop")
    assert page.evaluate("document.activeElement.name") == "why"
    keys.type("smoke")
    keys.press("Enter")  # without the tick nothing is sent
    assert page.url.endswith("/stop") and page.evaluate("document.querySelector('[name=sure]').matches(':invalid')")
    with stage.engine.connect() as connection:
        assert stops.reason(connection, one.new) is None
    page.locator("[name=why]").focus()
    keys.press("Tab")
    keys.press("Space")
    keys.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Stop the bundle"
    keys.press("Enter")
    page.wait_for_url(f"**/rollouts/{one.id}")
    assert "Nobody may run this bundle: smoke (by alice)" in page.inner_text("#now")
    assert one.on(0.1) == "stopped" and not one.assigned(1)
    desk.open(f"/rollouts/{one.id}")
    assert "stopped by the list of stopped bundles: smoke (by alice)" in page.inner_text("#now")
    assert desk.complaints == []
