"""Keys: shown once, kept as digests, refused when they are anything but right."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from cloud import keys
from cloud.database import connect, migrate
from cloud.errors import CloudError, Refused

from ..fleet import command


@pytest.fixture(scope="module")
def engine(database: str) -> Iterator[Engine]:
    made = connect(database)
    migrate(made)
    yield made
    made.dispose()


def test_a_key_is_known_by_its_digest_alone(engine: Engine) -> None:
    with engine.begin() as connection:
        key = keys.create(connection, "anna", may_write=True)
        rows = connection.execute(text("SELECT digest, name FROM api_keys")).all()
    assert key.encode() not in bytes(rows[0].digest) and len(rows[0].digest) == 32
    known = keys.Keys(engine)
    assert known.remembered(key) is None
    assert known.holder(key) == known.remembered(key) == keys.Holder("anna", may_write=True)


def test_an_expired_key_is_refused(engine: Engine) -> None:
    with engine.begin() as connection:
        ended = keys.create(connection, "ended", validity=datetime.timedelta(seconds=-1))
        lasting = keys.create(connection, "lasting", validity=datetime.timedelta(days=1))
    assert keys.Keys(engine).holder(lasting).name == "lasting"
    for key in (ended, "", "x", lasting + "x", "x" * 1_000):
        with pytest.raises(Refused, match="API key"):
            keys.Keys(engine).holder(key)


def test_names_are_taken_once_and_are_names(engine: Engine) -> None:
    with engine.begin() as connection:
        keys.create(connection, "taken")
        for name in ("taken", "", "-x", "a\nb", "x" * 65):
            with pytest.raises(CloudError, match="name"):
                keys.create(connection, name)
        with pytest.raises(CloudError, match="name"):
            keys.revoke(connection, "nobody")


def test_the_inner_key_comes_from_the_servers_key_alone(engine: Engine) -> None:
    inner = keys.inner_key(b"private")
    assert inner == keys.inner_key(b"private") != keys.inner_key(b"other")
    assert keys.Keys(engine, inner).holder(inner).name == "cloud"
    with pytest.raises(Refused):
        keys.Keys(engine, keys.inner_key(b"other")).holder(inner)


def test_keys_are_made_listed_and_revoked_by_commands(database: str, engine: Engine, tmp_path: object) -> None:
    place = ("--data", tmp_path, "--database", database)
    key = command("cloud", "key", "create", "by-command", "--days", "2", *place).stdout.strip()
    assert keys.Keys(engine).holder(key) == keys.Holder("by-command", may_write=False)
    assert "by-command: reads, until" in command("cloud", "key", "list", *place).stdout
    command("cloud", "key", "revoke", "by-command", *place)
    with pytest.raises(Refused):
        keys.Keys(engine).holder(key)
    assert '"revoked_at": "20' in command("cloud", "key", "list", "--json", *place).stdout
    again = command("cloud", "key", "create", "by-command", *place, check=False)
    assert again.returncode == 2 and len(again.stderr.strip().splitlines()) == 1


def test_only_a_bearer_is_a_key() -> None:
    assert keys.bearer([("x", "y"), ("authorization", "Bearer rf_1")]) == "rf_1"
    assert keys.bearer([("authorization", "Basic rf_1")]) == keys.bearer([("authorization", b"Bearer x")]) == ""
    assert keys.bearer(None) == ""
