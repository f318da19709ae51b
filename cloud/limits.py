"""What one vehicle may ask of the cloud, and why so much."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on calls; beyond them a call is refused and nothing of it is kept."""

    # A scene of 30 s with everything recorded is some 150 MB. Larger ones may be told of, not sent.
    clip_bytes: int = 1 << 30
    # Chunks of 256 KB to 1 MB carry most a second; a larger one only costs memory.
    chunk_bytes: int = 1 << 20
    # A clip up to this size may come in one call: a cut costs no more than this to send again.
    put_bytes: int = 1 << 20
    # What a vehicle may have begun and not completed: bytes as they were announced, and clips.
    staging_bytes: int = 4 << 30
    staging_clips: int = 256
    # Staged bytes that nobody has touched for so long are let go of at the server's start.
    staging_days: float = 30.0
    # A message: 1,000 summaries of about 2 kB, and a chunk with room for its fields.
    message_bytes: int = 4 << 20
    report_scenes: int = 1_000
    report_evictions: int = 10_000
    # A vehicle makes an outbox when it is set up or loses its disk.
    outboxes: int = 64
    # Scores, tags and their names: a few dozen are in use.
    tags: int = 256
    name_characters: int = 128
    reason_characters: int = 1_024
    embedding_bytes: int = 8_192
    # Bytes are on disk after so many at the latest; a wait for the disk costs 3 to 25 ms.
    sync_bytes: int = 4 << 20
    # A call that takes longer gives its place to others. A stream may be silent for longer: a vehicle on a poor link
    # paces its chunks, at two minutes apart at most.
    call_s: float = 30.0
    silence_s: float = 180.0
    # Calls under way at once, of all vehicles together.
    calls: int = 512
    # Of them on one connection, where further ones wait: a vehicle's uplink makes a few. So silent calls of one vehicle
    # do not take all.
    calls_of_connection: int = 32
