"""Encoders on another server, by gRPC. It must encode into the very space and by the very model that we expect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import grpc

from cloud.embed.batching import Answer
from cloud.embed.item import Modality, Vector
from cloud.embed.refusals import unavailable
from cloud.embed.wire import answer_of, item_message
from cloud.errors import ModelError, Refused
from roadfuse.v1 import embed_pb2, embed_pb2_grpc

TIMEOUT_S: Final = 30.0
# The largest content (32 MiB), and room for its fields.
MESSAGE_BYTES: Final = 36 << 20
_AWAY: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


class Remote:
    """One server.

    Args:
        address: HOST:PORT.
        credentials: of the channel; None: none, for a network of one's own.
    """

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        self._address = address
        options = [
            ("grpc.max_send_message_length", MESSAGE_BYTES),
            ("grpc.max_receive_message_length", MESSAGE_BYTES),
            # A server that comes back is found again within a second.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
        ]
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(address, options)
        else:
            self._channel = grpc.aio.secure_channel(address, credentials, options)
        self._stub: Any = embed_pb2_grpc.EmbedStub(self._channel)

    async def encode(self, modality: Modality, batch: Sequence[bytes], space: str, model: str) -> list[Answer]:
        """Vectors of a batch of contents, in order; where the server does not answer, all are unavailable."""
        request = embed_pb2.EmbedRequest(items=[item_message(modality, content) for content in batch])
        try:
            response = await self._stub.Embed(request, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            code = error.code()
            if code in _AWAY:
                return [unavailable(f"{modality}: the encoder at {self._address} does not answer") for _ in batch]
            line = " ".join((error.details() or code.name).split())[:200]
            return [Refused(code, f"{modality}: the encoder at {self._address} refused: {line}") for _ in batch]
        answers = [answer_of(answer) for answer in response.answers]
        return [self._same(answer, modality, space, model) for answer in answers]

    async def close(self) -> None:
        """Let go of the connection."""
        await self._channel.close()

    def _same(self, answer: Answer, modality: Modality, space: str, model: str) -> Answer:
        """The answer, unless it is of another space or model, which would compare with nothing here."""
        if isinstance(answer, Vector) and (answer.space, answer.model, answer.modality) != (space, model, modality):
            return ModelError(
                f"{modality}: expected the encoder at {self._address} to be {model[:16]} of space {space[:16]}, "
                f"got {answer.model[:16]} of {answer.space[:16]}"
            )
        return answer
