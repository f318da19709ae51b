"""The outbox's tables, and how an older outbox gets those of this version."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

VERSION: Final = 2
SCHEMA: Final = """
CREATE TABLE fact (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE scene (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    state TEXT NOT NULL CHECK (state IN ('writing', 'held', 'delivered', 'evicted', 'lost')),
    told TEXT NOT NULL DEFAULT '',      -- the state that the cloud has committed; '' before it knows of the scene
    reason TEXT NOT NULL DEFAULT '',
    summary BLOB NOT NULL,              -- roadfuse.v1.SceneSummary without sequence and media
    worth REAL NOT NULL DEFAULT 0,
    wanted INTEGER NOT NULL DEFAULT 0,  -- the cloud asked for it
    lane REAL NOT NULL DEFAULT 0,       -- chance with which it was chosen whatever its worth; 0: it was not
    bytes INTEGER NOT NULL DEFAULT 0,
    sha256 BLOB NOT NULL DEFAULT x''
);
CREATE INDEX to_tell ON scene (sequence) WHERE told <> state AND state <> 'writing' AND state <> 'delivered';
CREATE INDEX held ON scene (wanted DESC, lane DESC, worth DESC) WHERE state = 'held';
"""
# What an outbox of the version before lacks.
SINCE_1: Final = """
ALTER TABLE scene ADD COLUMN former BLOB NOT NULL DEFAULT x'';  -- digests that its clip had, 32 bytes each
ALTER TABLE scene ADD COLUMN boost REAL NOT NULL DEFAULT 0;     -- weight of the campaign that it goes up for; 0: none
CREATE TABLE probe (
    campaign TEXT PRIMARY KEY,
    revision INTEGER NOT NULL,          -- an older word than this is void
    stopped INTEGER NOT NULL,
    offered INTEGER NOT NULL,           -- in the last offer
    active INTEGER NOT NULL DEFAULT 0,  -- looked for now
    weight REAL NOT NULL,
    expires_ns INTEGER NOT NULL,
    probe BLOB NOT NULL                 -- roadfuse.v1.Probe, whose signature was checked
) WITHOUT ROWID;
CREATE TABLE choice (                   -- what goes up, or went, on a campaign's bytes
    campaign TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    score REAL NOT NULL,
    told INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (campaign, sequence)
) WITHOUT ROWID;
CREATE INDEX choice_of ON choice (sequence);
CREATE TABLE ask (
    id TEXT PRIMARY KEY,
    first_ns INTEGER NOT NULL,
    last_ns INTEGER NOT NULL,
    reason TEXT NOT NULL,
    sequence INTEGER NOT NULL DEFAULT 0,  -- of the scene that answers it
    answer TEXT NOT NULL DEFAULT '',      -- kept, gone; '' while nobody looked
    told INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
"""


def steps(version: int) -> Iterator[str]:
    """Statements that bring an outbox of a version, 0 for none at all, to this one."""
    for since, statements in ((0, SCHEMA), (1, SINCE_1)):
        if version <= since:
            plain = "\n".join(line.partition("--")[0] for line in statements.splitlines())
            yield from (statement for statement in plain.split(";") if statement.strip())
    if version != VERSION:
        yield f"PRAGMA user_version = {VERSION}"
