"""Writes a clip's messages under the very channels that they had, whoever defined them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from mcap.data_stream import RecordBuilder
from mcap.records import Channel, Schema

from edge.drive.contents import DriveChannel
from edge.drive.messages import DriveMessage
from edge.drive.writer import DriveWriter


class ClipWriter(DriveWriter):
    """A drive with the channels of another; use it in a `with` block.

    Args:
        path: the file; replaced if it exists.
        channels: of the other drive, those that are kept.
        metadata: of the record `roadfuse.drive`.
        durable: wait for the disk at each chunk.
    """

    def __init__(
        self, path: Path, channels: Iterable[DriveChannel], metadata: Mapping[str, str], *, durable: bool = False
    ) -> None:
        super().__init__(path, metadata, durable=durable)
        self._given = {str(channel.id): channel for channel in channels}

    def __enter__(self) -> ClipWriter:
        return self

    def copy(self, message: DriveMessage) -> None:
        """Write a message under the channel that it had; raises what `write_payload` does."""
        super().copy(message._replace(topic=str(message.channel)))

    def _register(self, topic: str) -> Channel:
        """The channel of an id, which keeps it: equal instants are ordered by it."""
        given = self._given[topic]
        builder = RecordBuilder()
        schema_id = 0
        if given.schema or given.schema_data:
            key = f"{given.schema_encoding} {given.schema} {hash(given.schema_data)}"
            schema = self._schemas.get(key)
            if schema is None:
                schema = Schema(
                    id=len(self._schemas) + 1, name=given.schema, encoding=given.schema_encoding, data=given.schema_data
                )
                schema.write(builder)
                self._schemas[key] = schema
            schema_id = schema.id
        channel = Channel(given.id, given.topic, given.message_encoding, {}, schema_id)
        channel.write(builder)
        self._journal.append(builder.end())
        self._channels[topic] = channel
        return channel
