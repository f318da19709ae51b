"""The Enrolment service: a one-time token and a signing request for a certificate, from a caller without one.

With it come the roots of the release repositories, where there are any: trust in updates begins with them.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Engine

from cloud import identity
from cloud.calls import Context, Threads, answered
from cloud.certificates import Authority
from cloud.limits import Limits
from cloud.releases import stored
from cloud.releases.keys import DIRECTOR, IMAGE
from roadfuse.v1 import ingest_pb2, ingest_pb2_grpc

CALL_S: Final = Limits().call_s


class Enrolment(ingest_pb2_grpc.EnrolmentServicer):
    """Enrols vehicles.

    Args:
        engine: the migrated catalogue.
        authority: signs their certificates.
        threads: for all that waits.
    """

    def __init__(self, engine: Engine, authority: Authority, threads: Threads) -> None:
        self._engine = engine
        self._authority = authority
        self._threads = threads

    @answered(CALL_S)
    async def Enrol(self, request: ingest_pb2.EnrolRequest, context: Context) -> ingest_pb2.EnrolResponse:
        """Gives a vehicle its certificate; committed when answered."""
        return await self._threads.run(self._enrol, request)

    def _enrol(self, request: ingest_pb2.EnrolRequest) -> ingest_pb2.EnrolResponse:
        with self._engine.begin() as connection:
            certificate = identity.enrol(connection, self._authority, request.csr, request.token)
            director, image = (stored.latest(connection, repository, "root") for repository in (DIRECTOR, IMAGE))
        return ingest_pb2.EnrolResponse(
            certificate=certificate,
            chain=self._authority.pem,
            director_root=director.content if director else b"",
            image_root=image.content if image else b"",
        )
