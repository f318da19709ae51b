"""Health checks of the cloud's servers: asked for one at a time, as grpc_health_probe and Kubernetes do."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1.health import aio as health


class Health(health.HealthServicer):  # type: ignore[misc]
    """Answers Check, and no Watch.

    A watch goes on for ever and needs no certificate and no key, but counts among the calls that a server takes at
    once: a few hundred of them would leave nobody else any.
    """

    async def Watch(self, request: Any, context: Any) -> None:
        """Refuse; clients of gRPC take this for healthy."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "expected Check, got Watch, which is not answered here")
