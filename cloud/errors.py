"""What can go wrong in the cloud, as one tree below the edge's.

    RoadfuseError
    └── CloudError
        ├── DatabaseError         PostgreSQL can't be started, reached or migrated
        ├── ObjectError           clips can't be kept where they should be
        ├── ModelError            an encoder or analysis model is missing, broken or of another space
        ├── QueryError            a query that can't be understood
        ├── JobError              there is no such job
        │   ├── LeaseLost         a job is no longer this worker's
        │   └── Hopeless          a job can't succeed however often it is tried
        ├── IdentityError         a certificate, key or token is missing, malformed or not what it should be
        ├── ReleaseError          a release, its keys or its metadata are missing, damaged or not what they should be
        ├── RolloutError          a policy that makes no sense, or a rollout that can't do what is asked
        └── Refused               a call is refused; its status and message go to the caller

A message says what, expected and got.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.errors import RoadfuseError

if TYPE_CHECKING:
    import grpc


class CloudError(RoadfuseError):
    """Base of the cloud's errors."""


class DatabaseError(CloudError):
    """PostgreSQL can't be started, reached or migrated."""


class ObjectError(CloudError):
    """Clips can't be kept where they should be."""


class ModelError(CloudError):
    """An encoder or analysis model is missing, broken or of another space."""


class QueryError(CloudError):
    """A query that can't be understood."""


class IdentityError(CloudError):
    """A certificate, key or token is missing, malformed or not what it should be."""


class ReleaseError(CloudError):
    """A release, its keys or its metadata are missing, damaged or not what they should be."""


class RolloutError(CloudError):
    """A policy that makes no sense, or a rollout that can't do what is asked of it."""


class JobError(CloudError):
    """Base of what can go wrong with jobs."""


class LeaseLost(JobError):
    """The job is no longer this worker's: another took it over, or it ended.

    Attributes:
        is_cancelled: somebody asked for its end.
    """

    def __init__(self, message: str, is_cancelled: bool) -> None:
        super().__init__(message)
        self.is_cancelled = is_cancelled


class Hopeless(JobError):
    """The job can't succeed however often it is tried."""


class Refused(CloudError):
    """A call is refused.

    Attributes:
        status: what the caller is answered with, beside the message.
    """

    def __init__(self, status: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.status = status
