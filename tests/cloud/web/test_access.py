"""Who may see pages, and who may change things."""

from __future__ import annotations

import datetime
import os
import re
from pathlib import Path

import pytest
from sqlalchemy import update

from cloud.errors import CloudError
from cloud.tables import API_KEYS
from cloud.web.access import SESSION_S, TRIES, Access, Tries, secret_at

from .conftest import Stage
from .scenery import Visitor, key

STRICT = ("content-security-policy", "x-content-type-options", "x-frame-options", "referrer-policy")


def test_without_a_session_every_page_leads_to_the_sign_in_and_back(stage: Stage) -> None:
    stranger = Visitor(stage.web.address)
    for path in ("/", f"/scenes/{stage.scene_ids[0]}", "/search?q=siren", "/fleet", "/jobs", "/campaigns"):
        answer = stranger.get(path)
        assert answer.status_code == 303 and answer.headers["location"].startswith("/sign-in?to=%2F"), path
    media = stranger.get(f"/scenes/{stage.scene_ids[0]}/clip.mcap", headers={"Accept": "*/*"})
    assert media.status_code == 401 and len(media.content) < 100
    assert stranger.get("/sign-in?to=%2Fjobs%3Fstate%3Ddone").text.count('value="/jobs?state=done"') == 1


def test_a_key_opens_a_session_in_a_cookie_that_scripts_and_other_sites_do_not_get(stage: Stage) -> None:
    visitor = Visitor(stage.web.address)
    answer = visitor.sign_in(stage.key, to="/fleet")
    assert answer.status_code == 303 and answer.headers["location"] == "/fleet"
    cookie = next(word for word in answer.headers.get_list("set-cookie") if word.startswith("roadfuse-session="))
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and stage.key not in cookie
    assert visitor.get("/fleet").status_code == 200


def test_a_wrong_key_is_refused_and_a_guesser_is_slowed(stage: Stage) -> None:
    tries = Tries(lambda: clock[0])
    clock = [0.0]
    for _ in range(TRIES):
        assert tries.is_open("10.0.0.1")
        tries.note("10.0.0.1")
    assert not tries.is_open("10.0.0.1") and tries.is_open("10.0.0.2")
    clock[0] = 61.0
    assert tries.is_open("10.0.0.1")
    refused = Visitor(stage.web.address).sign_in("no-such-key")
    assert refused.status_code == 403 and "none, or no longer counts" in refused.text
    assert Visitor(stage.web.address).sign_in("x" * 10_000).status_code == 403


def test_the_sign_in_leads_nowhere_else(stage: Stage) -> None:
    for to in ("https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)", "/\n/x"):
        assert Visitor(stage.web.address).sign_in(stage.key, to=to).headers["location"] == "/"


@pytest.mark.parametrize("what", ["digest", "end", "nonce", "signature", "empty", "dots"])
def test_a_changed_or_foreign_session_is_none(stage: Stage, what: str) -> None:
    visitor = stage.visitor()
    digest, ends, nonce, signature = visitor.http.cookies["roadfuse-session"].split(".")
    forged = {
        "digest": f"{'0' * 64}.{ends}.{nonce}.{signature}",
        "end": f"{digest}.{int(ends) + 1}.{nonce}.{signature}",
        "nonce": f"{digest}.{ends}.{'0' * 32}.{signature}",
        "signature": f"{digest}.{ends}.{nonce}.{'0' * 64}",
        "empty": "",
        "dots": "....",
    }[what]
    visitor.http.cookies.clear()
    assert visitor.get("/", headers={"Cookie": f"roadfuse-session={forged}"}).status_code == 303


def test_a_session_of_another_server_is_none(stage: Stage) -> None:
    foreign = Access(stage.engine, os.urandom(32)).sign_in(stage.key)
    assert Visitor(stage.web.address).get("/", headers={"Cookie": f"roadfuse-session={foreign}"}).status_code == 303


def test_a_session_ends_with_its_time_and_with_its_key(stage: Stage) -> None:
    now = [1_000.0]
    access = Access(stage.engine, bytes(32), lambda: now[0])
    word = key(stage.engine, "for-a-while")
    cookie = access.sign_in(word)
    assert access.visitor(cookie) is not None
    now[0] += SESSION_S
    assert access.visitor(cookie) is None
    cookie = access.sign_in(word)
    past = datetime.datetime.now(datetime.timezone.utc)
    with stage.engine.begin() as connection:
        connection.execute(update(API_KEYS).where(API_KEYS.c.name == "for-a-while").values(revoked_at=past))
    assert access.sign_in(word) is None
    assert Access(stage.engine, bytes(32), lambda: now[0]).visitor(cookie) is None


def test_a_key_whose_time_is_over_is_refused(stage: Stage) -> None:
    word = key(stage.engine, "of-yesterday")
    past = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    with stage.engine.begin() as connection:
        connection.execute(update(API_KEYS).where(API_KEYS.c.name == "of-yesterday").values(expires_at=past))
    assert Visitor(stage.web.address).sign_in(word).status_code == 403


def test_a_form_without_its_token_or_from_another_site_changes_nothing(stage: Stage) -> None:
    visitor = stage.visitor()
    path, token = f"/scenes/{stage.told_id}/want", visitor.token()
    other = stage.visitor().token()
    assert visitor.http.post(path, data={"back": "/"}).status_code == 403
    assert visitor.http.post(path, data={"csrf": "0" * 64}).status_code == 403
    assert visitor.http.post(path, data={"csrf": other}).status_code == 403
    foreign = [{"Origin": origin} for origin in ("https://evil.example", "null", "http://[")]
    for headers in (*foreign, {"Sec-Fetch-Site": "cross-site"}):
        assert visitor.http.post(path, data={"csrf": token}, headers=headers).status_code == 403
    assert "Ask for the clip" in visitor.get(f"/scenes/{stage.told_id}").text


def test_a_form_sent_after_the_session_ended_leads_back_to_its_page_by_the_sign_in(stage: Stage) -> None:
    here = stage.web.address
    page = f"/scenes/{stage.told_id}?t=1"
    for referer, to in (
        (here + page, page),
        ("", "/"),
        ("https://evil.example/scenes/1", "/"),
        (f"{here}//evil.example/", "/"),
        (f"{here}/\\evil.example/", "/"),
        ("http://[", "/"),
    ):
        stranger = Visitor(here)
        refused = stranger.http.post(
            f"/scenes/{stage.told_id}/want", data={"csrf": "0" * 64}, headers={"Referer": referer}
        )
        assert refused.status_code == 401 and "Your session has ended, and nothing was changed" in refused.text
        (link,) = re.findall(r'href="(/sign-in\?to=[^"]*)"', refused.text)
        assert f'name="to" value="{to}"' in stranger.get(link).text, referer
    bare = Visitor(here).http.post("/jobs/1/cancel", headers={"Accept": "*/*"})
    assert bare.status_code == 401 and bare.text == "sign in first\n"
    assert "Ask for the clip" in stage.visitor().get(f"/scenes/{stage.told_id}").text


def test_a_reading_key_sees_and_changes_nothing(stage: Stage) -> None:
    reader = stage.visitor(stage.reading_key)
    page = reader.get(f"/scenes/{stage.told_id}")
    assert page.status_code == 200 and "Ask for the clip" not in page.text
    assert reader.post(f"/scenes/{stage.told_id}/want").status_code == 403
    assert reader.post("/jobs/1/cancel").status_code == 403


def test_signing_out_ends_it_in_this_browser(stage: Stage) -> None:
    visitor = stage.visitor()
    assert visitor.post("/sign-out").headers["location"] == "/sign-in"
    assert visitor.get("/").status_code == 303


def test_every_answer_is_strict_errors_too(stage: Stage) -> None:
    visitor = stage.visitor()
    for path in ("/", "/nothing-here", "/scenes/999999", "/static/pages.css", "/sign-in", "/health", "/scenes/x"):
        headers = visitor.get(path).headers
        assert all(name in headers for name in STRICT), path
        assert "unsafe" not in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "server" not in headers


def test_the_servers_secret_is_its_owners_alone(tmp_path: Path) -> None:
    secret = secret_at(tmp_path / "web-secret")
    assert secret_at(tmp_path / "web-secret") == secret and len(secret) == 32
    assert (tmp_path / "web-secret").stat().st_mode & 0o777 == 0o600
    (tmp_path / "web-secret").chmod(0o644)
    with pytest.raises(CloudError, match="mode 0600"):
        secret_at(tmp_path / "web-secret")
