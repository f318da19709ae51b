"""What a request changes, told from its metadata alone; and refused where that is not all it changes.

Each draft is made again from what it follows, with the changes that are told, and must be equal to that: whatever a
request does beyond its words is a difference. No database, no network and no keys: who signs needs nothing else.
"""

from __future__ import annotations

import copy
import datetime
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from securesystemslib.signer import Key  # type: ignore[attr-defined]
from tuf.api.metadata import Metadata, MetaFile, Root, Targets  # type: ignore[attr-defined]

from cloud.errors import ReleaseError
from cloud.releases.keys import DIRECTOR, IMAGE, public_key
from cloud.releases.releases import Release
from cloud.releases.request import Request, Said
from cloud.releases.roles import BINS, ROOT, SNAPSHOT, TARGETS, Name
from edge.errors import UpdateError
from edge.updates import metadata as vehicle

# Media travel by post; what is older is proposed again.
MOST_AGE: Final = datetime.timedelta(days=30)
MOST_AHEAD: Final = datetime.timedelta(days=1)  # clocks of machines without a network
SHORT: Final = 16  # characters of a key's id that are shown


@dataclass(frozen=True, slots=True)
class Signers:
    """Whose signatures a draft needs.

    Attributes:
        by: the root or the targets that says so.
        keyids: without revoked ones.
    """

    name: Name
    by: Root | Targets
    keyids: tuple[str, ...]
    threshold: int

    def signed(self, draft: Metadata[Any]) -> list[str]:
        """Ids of those that have."""
        result = self.by.get_verification_result(self.name.role, draft.signed_bytes, draft.signatures)
        return [keyid for keyid in self.keyids if keyid in result.signed]

    def __str__(self) -> str:
        return f"{self.threshold} of {', '.join(keyid[:SHORT] for keyid in self.keyids)}"


@dataclass(frozen=True, slots=True)
class Change:
    """What a request changes.

    Attributes:
        removed: paths of targets.
        words: all of it, for people.
    """

    added: tuple[Release, ...]
    removed: tuple[str, ...]
    words: tuple[str, ...]


def signers(
    name: Name, drafts: Mapping[Name, Any], standing: Mapping[Name, Any], revoked: Collection[str] = ()
) -> list[Signers]:
    """Whose signatures a draft needs: a root those of itself and of the one before, all else those of what is new."""
    root = Name(name.repository, ROOT)
    if name.role == ROOT:
        delegators = [standing[root]] if root in standing else []
        delegators.append(drafts[root])
    else:
        delegator = Name(IMAGE, TARGETS) if name.rule.role == BINS else root
        delegators = [drafts.get(delegator) or standing[delegator]]
    found = []
    for by in delegators:
        role = by.get_delegated_role(name.role)
        found.append(Signers(name, by, tuple(one for one in role.keyids if one not in revoked), role.threshold))
    return found


def needed(request: Request) -> list[Signers]:
    """Of all drafts."""
    drafts, standing = {name: draft.signed for name, draft in request.drafts.items()}, request.standing
    return [one for name in drafts for one in signers(name, drafts, standing, request.revoked)]


def check(request: Request, now: datetime.datetime) -> Change:
    """Tell what a request from a file changes.

    Raises:
        ReleaseError: it is not what its words say, does not follow from what was before, or has signatures that
            don't hold.
    """
    if not now - MOST_AGE <= request.made <= now + MOST_AHEAD:
        raise ReleaseError(
            f"expected a request of the last {MOST_AGE.days} days, got one made {request.made:%Y-%m-%d %H:%M} "
            f"while the clock here says {now:%Y-%m-%d %H:%M}"
        )
    _check_before(request)
    told = change(request)
    if request.words != told.words:
        differing = next((one for one in told.words if one not in request.words), "nothing more")
        raise ReleaseError(f"words: expected what the metadata says ({differing}), got other words")
    by_name: dict[Name, list[Signers]] = {}
    for one in needed(request):
        by_name.setdefault(one.name, []).append(one)
    for name, draft in request.drafts.items():
        _check_signatures(name, draft, by_name[name])
    return told


def change(request: Request) -> Change:
    """What a request changes by what it follows.

    Raises:
        ReleaseError: it changes more than can be told.
    """
    added: list[Release] = []
    removed: list[str] = []
    words: list[str] = []
    standing, drafts = request.standing, {name: draft.signed for name, draft in request.drafts.items()}
    if not drafts:
        raise ReleaseError("expected drafts to sign, got none")
    for name, draft in drafts.items():
        before = standing[name]
        if draft.version != before.version + 1:
            raise ReleaseError(f"{name}: expected version {before.version + 1}, got {draft.version}")
        expires = name.rule.expires(request.made)
        if draft.expires != expires:
            raise ReleaseError(f"{name}: expected it to end {expires}, got {draft.expires}")
        expected = copy.deepcopy(before)
        expected.version, expected.expires = draft.version, draft.expires
        if name.role == ROOT:
            words += _keys_of_root(name, expected, draft)
        elif name.role == SNAPSHOT:
            expected.meta |= {f"{one.role}.json": MetaFile(drafts[one].version) for one in _below(drafts)}
        elif name.role == TARGETS:
            words += _keys_of_bins(name, expected, draft)
        else:
            more, less = _releases(name, expected, draft, request.said)
            added, removed = added + more, removed + less
        told, got = _fields(expected), _fields(draft)
        if told != got:
            fields = ", ".join(one for one in {**told, **got} if told.get(one) != got.get(one))
            raise ReleaseError(f"{name}: expected what it follows with the changes told, got other {fields}"[:300])
    for release in added:
        words += _told(release)
    words += [f"takes back {path}" for path in removed]
    for name, draft in drafts.items():
        by = " and ".join(dict.fromkeys(str(one) for one in signers(name, drafts, standing, request.revoked)))
        words.append(f"{name}: version {draft.version}, until {draft.expires:%Y-%m-%d}, signed by {by}")
    return Change(tuple(added), tuple(removed), tuple(words))


def check_signed(request: Request) -> None:
    """Whether enough keys have signed all drafts.

    Raises:
        ReleaseError: they have not.
    """
    for line in missing(request):
        raise ReleaseError(line)


def missing(request: Request) -> list[str]:
    """What is still to be signed, each in a line."""
    lines = []
    for one in needed(request):
        here = one.signed(request.drafts[one.name])
        if len(here) < one.threshold:
            away = ", ".join(keyid[:SHORT] for keyid in one.keyids if keyid not in here)
            lines.append(
                f"expected {one.threshold} of the {len(one.keyids)} keys of {one.name.rule.name} to sign "
                f"{one.name.role}, got {len(here)}; not yet: {away}"
            )
    return list(dict.fromkeys(lines))


def _check_before(request: Request) -> None:
    """What the drafts follow was signed by those who may."""
    used = {name.repository for name in request.drafts}
    if set(request.roots) != used or not used <= {IMAGE, DIRECTOR}:
        raise ReleaseError(f"expected roots of {', '.join(sorted(used))}, got those of {', '.join(request.roots)}")
    for repository, roots in request.roots.items():
        if not roots:
            raise ReleaseError(f"expected roots of {repository}, got none")
        try:
            root = vehicle.trusted_root(roots[0].to_bytes(), f"{repository} root")
            for following in roots[1:]:
                root = vehicle.next_root(root, following.to_bytes(), f"{repository} root")
        except UpdateError as error:
            raise ReleaseError(str(error)) from None
    standing = request.standing
    names = {name for name in request.drafts if name.role != ROOT}
    names |= {Name(IMAGE, TARGETS)} if any(name.rule.role == BINS for name in names) else set()
    if set(request.before) != names:
        raise ReleaseError(
            f"before: expected {', '.join(sorted(map(str, names)))}, got {', '.join(sorted(map(str, request.before)))}"
        )
    for name in sorted(names, key=lambda name: (name.role != TARGETS, name)):
        if name.rule.is_online:
            raise ReleaseError(f"{name}: expected a role with offline keys, got one that the cloud signs")
        metadata = request.before[name]
        try:
            (by,) = signers(name, {}, standing)
        except ValueError:
            raise ReleaseError(f"{name}: expected a role that is delegated, got another") from None
        if len(by.signed(metadata)) < by.threshold:
            raise ReleaseError(f"{name}: expected a version before it that is signed, got one that is not")
    snapshot = standing.get(Name(IMAGE, SNAPSHOT))
    for name in names - {Name(IMAGE, SNAPSHOT)}:
        meta = snapshot.meta.get(f"{name.role}.json") if snapshot else None
        if meta is None or meta.version != standing[name].version:
            raise ReleaseError(f"{name}: expected the version that the snapshot before it names, got another")


def _check_signatures(name: Name, draft: Metadata[Any], wanted: Sequence[Signers]) -> None:
    holding = {keyid for one in wanted for keyid in one.signed(draft)}
    known = {keyid for one in wanted for keyid in one.keyids}
    for keyid in draft.signatures:
        if keyid not in known:
            raise ReleaseError(f"{name}: expected signatures of its own keys, got one of {keyid[:SHORT]}")
        if keyid not in holding:
            raise ReleaseError(f"{name}: expected signatures that hold, got one of {keyid[:SHORT]} that does not")


def _keys_of_root(name: Name, expected: Root, draft: Root) -> list[str]:
    words = []
    for role in list(expected.roles):
        pair = _replaced(Name(name.repository, role), expected.roles[role].keyids, draft.roles[role].keyids)
        if pair is not None:
            expected.revoke_key(pair[0], role)
            expected.add_key(_checked(name, draft.keys, pair[1]), role)
            words.append(f"{name.repository} {role}: key {pair[1]} in place of {pair[0]}")
    return words


def _keys_of_bins(name: Name, expected: Targets, draft: Targets) -> list[str]:
    before, after = expected.delegations, draft.delegations
    if before is None or before.succinct_roles is None or after is None or after.succinct_roles is None:
        raise ReleaseError(f"{name}: expected hash bins, got none")
    pair = _replaced(Name(IMAGE, BINS), before.succinct_roles.keyids, after.succinct_roles.keyids)
    if pair is None:
        return []
    expected.revoke_key(pair[0])
    expected.add_key(_checked(name, after.keys, pair[1]))
    return [f"image {BINS}: key {pair[1]} in place of {pair[0]}"]


def _replaced(name: Name, before: Sequence[str], after: Sequence[str]) -> tuple[str, str] | None:
    old, new = [one for one in before if one not in after], [one for one in after if one not in before]
    if len(old) != len(new) or len(new) > 1:
        raise ReleaseError(f"{name}: expected one key in place of another, got {len(new)} in place of {len(old)}")
    return (old[0], new[0]) if old else None


def _checked(name: Name, keys: Mapping[str, Key], keyid: str) -> Key:
    """A new key, whose id is its value's: one key under two names would count twice."""
    key = keys.get(keyid)
    if key is None or key != public_key(key.keyval):
        raise ReleaseError(f"{name}: expected an ed25519 key under its own id, got {keyid[:SHORT]}")
    return key


def _releases(name: Name, expected: Targets, draft: Targets, said: Said) -> tuple[list[Release], list[str]]:
    """What a bin gains and loses."""
    added = []
    for path, target in draft.targets.items():
        if path not in expected.targets:
            release = Release.of_target(target, said.version, said.notes)
            highest = max((int(one.split("/")[1]) for one in expected.targets), default=0)
            if release.counter <= highest:
                raise ReleaseError(f"{path}: expected a counter above {highest}, got {release.counter}")
            added.append(release)
    removed = [path for path in expected.targets if path not in draft.targets]
    for path in removed:
        del expected.targets[path]
    expected.targets |= {release.path: release.image_target() for release in added}
    return added, removed


def _fields(content: Any) -> dict[str, str]:
    """Of metadata, each as JSON: Python takes true for 1, vehicles do not."""
    return {field: json.dumps(value, sort_keys=True) for field, value in content.to_dict().items()}


def _below(drafts: Mapping[Name, Any]) -> list[Name]:
    """What a snapshot names."""
    return [name for name in drafts if name.repository == IMAGE and name.role not in (ROOT, SNAPSHOT)]


def _told(release: Release) -> list[str]:
    return [
        f"release {release.counter}: {release.name}, for {', '.join(release.hardware)}, "
        f"{len(release.files)} files, {release.size_bytes} bytes, bundle {release.bundle}",
        *(f"  {file.sha256}  {file.length:>10}  {file.name}" for file in release.files),
    ]
