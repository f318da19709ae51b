"""From drafts to published metadata: propose, sign, accept; in one go where all keys are at hand.

Who proposes has the catalogue and no offline keys; who signs has one key and no catalogue; who accepts has again the
catalogue alone. Between them goes a request (`request`), whose words are derived from its metadata (`review`).
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection
from tuf.api.metadata import Metadata

from cloud.errors import ReleaseError
from cloud.releases import review, stored
from cloud.releases.image import publish_timestamp
from cloud.releases.keys import IMAGE, KeyFolders
from cloud.releases.request import Request, Said
from cloud.releases.roles import BINS, ROOT, TARGETS, TIMESTAMP, Name
from cloud.releases.signing import Keys, read


def propose(
    connection: Connection,
    drafts: Mapping[Name, Any],
    now: datetime.datetime,
    said: Said | None = None,
    revoked: Sequence[str] = (),
) -> Request:
    """Drafts as a request; nothing is signed nor published.

    Args:
        revoked: ids of keys that must not sign it.

    Raises:
        ReleaseError: there are no drafts, or no repository.
    """
    roots = {}
    for repository in dict.fromkeys(name.repository for name in drafts):
        roots[repository] = [read(root.content, repository, ROOT) for root in stored.roots(connection, repository)]
    names = [name for name in drafts if name.role != ROOT]
    if any(name.rule.role == BINS for name in names):
        names = list(dict.fromkeys([Name(IMAGE, TARGETS), *names]))
    request = Request(
        now.replace(microsecond=0),
        roots,
        {name: _latest(connection, name) for name in names},
        {name: Metadata(draft) for name, draft in drafts.items()},
        said or Said(),
        tuple(revoked),
    )
    return replace(request, words=review.change(request).words)


def sign(request: Request, folders: KeyFolders) -> None:
    """Sign all drafts with all keys that are here and wanted, and have not signed yet.

    Raises:
        ReleaseError: a file of a key can't be used.
    """
    for one in review.needed(request):
        draft = request.drafts[one.name]
        for signer in folders.signers(one.name.repository, one.name.rule.role, one.keyids):
            if signer.public_key.keyid not in draft.signatures:
                draft.sign(signer, append=True)


def merged(requests: Sequence[Request]) -> Request:
    """One request with the signatures of all its copies.

    Raises:
        ReleaseError: they are not copies of one request.
    """
    first = requests[0]
    for other in requests[1:]:
        if _unsigned(other) != _unsigned(first):
            raise ReleaseError("expected copies of one request, got different ones")
    drafts = {}
    for name, draft in first.drafts.items():
        signatures = {keyid: one for request in requests for keyid, one in request.drafts[name].signatures.items()}
        drafts[name] = Metadata(draft.signed, signatures)
    return replace(first, drafts=drafts)


def check_current(connection: Connection, request: Request) -> None:
    """Whether a request still follows what is published; nobody else publishes until the transaction ends.

    Raises:
        ReleaseError: it does not.
    """
    stored.lock(connection)
    for repository, roots in request.roots.items():
        published = [read(root.content, repository, ROOT) for root in stored.roots(connection, repository)]
        if published != roots:
            raise ReleaseError(_moved(Name(repository, ROOT), len(roots), len(published)))
    for name, before in request.before.items():
        latest = _latest(connection, name)
        if latest != before:
            raise ReleaseError(_moved(name, before.signed.version, latest.signed.version))


def publish(connection: Connection, request: Request, keys: Keys, now: datetime.datetime) -> list[Name]:
    """Publish drafts that enough keys have signed; then the cloud signs its timestamp.

    Returns:
        What has a new version.

    Raises:
        ReleaseError: signatures are missing.
    """
    review.check_signed(request)
    for name, draft in request.drafts.items():
        stored.put(connection, *name, draft.signed.version, draft.to_bytes())
    if any(name.repository == IMAGE for name in request.drafts):
        publish_timestamp(connection, keys, now)
        return [*request.drafts, Name(IMAGE, TIMESTAMP)]
    return list(request.drafts)


def _latest(connection: Connection, name: Name) -> Metadata[Any]:
    found = stored.latest(connection, *name)
    if found is None:
        raise ReleaseError(f"expected {name} among what is published, got none")
    return read(found.content, *name)


def _unsigned(request: Request) -> bytes:
    bare = {name: Metadata(draft.signed) for name, draft in request.drafts.items()}
    return replace(request, drafts=bare).to_bytes()


def _moved(name: Name, expected: int, got: int) -> str:
    other = f"version {got}" if got != expected else "another one"
    return f"expected {name} version {expected}, which the request follows, got {other} by now: propose it again"
