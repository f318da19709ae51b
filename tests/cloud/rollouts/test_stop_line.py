"""The stop line's own connection to the database."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from sqlalchemy import func, select

from cloud.database import connect, migrate
from cloud.postgres import Postgres
from cloud.rollouts import book
from cloud.rollouts.stop_line import StopLine


def test_words_are_heard_whatever_the_folder_of_the_database_is_called(open_folder: Path) -> None:
    heard = threading.Event()
    with Postgres(open_folder / "a ü+b%20c&d=1") as postgres:
        as_text = connect(postgres.url).url.render_as_string(hide_password=False)
        engine = connect(as_text)  # as the worker gives it to its hands
        migrate(engine)
        line = StopLine(engine, None, heard.set)
        line.start()
        end = time.monotonic() + 30
        while not heard.wait(0.1) and time.monotonic() < end:  # it may not listen yet
            with engine.begin() as connection:
                connection.execute(select(func.pg_notify(book.CHANNEL, "")))
        line.end()
        engine.dispose()
    assert heard.is_set()
