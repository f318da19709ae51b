"""Whose word a vehicle takes: both repositories must say the same, the director for it, now, and over its own nonce.

Uptane's full verification on python-tuf's metadata classes. Its own client is not used: that one measures expiry with
the device's clock, which anybody who holds the vehicle can set, and does not make durable what it saw.

1. Roots follow one another, each signed by the one before and by itself, and are kept at once: a key that was revoked
   stays so, whatever follows.
2. The director's timestamp, snapshot and targets are signed, in order, and no older than what was seen; the targets
   name this vehicle and the nonce that it just sent. Time is what they say; it does not go back; all expires by it.
3. A target is taken only as the image repository has it too: path, length, digests, hardware, counter and bundle.
4. What was seen is durable before anything is told. A refused answer changes nothing but roots.

Where the record is lost, torn or gone, the vehicle begins at the roots that came with it: signatures, agreement, the
nonce, and the caller's highest counter hold all the same, so that nothing older is taken; `lost` says so.

Ref: Uptane standard 2.1.0, 5.4.4 (full verification); TUF specification 1.0.33, 5.3 to 5.6.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tuf.api.metadata import Root  # type: ignore[attr-defined]

from edge.errors import UpdateError
from edge.updates import claims, metadata
from edge.updates.assignment import Assignment, Cloud, Release
from edge.updates.claims import Claim, Word
from edge.updates.disk import Disk
from edge.updates.record import Record, RecordLost
from edge.updates.remembered import Known, Remembered
from roadfuse.v1.updates_pb2 import CheckInResponse

TRUST: Final = "trust"
DIRECTOR_ROOT: Final = "director-root.json"
IMAGE_ROOT: Final = "image-root.json"
_NONCE_BYTES: Final = 16
_NS: Final = 1_000_000_000
_MOST_OPENED: Final = 8  # roots; there are two at a time


@dataclass(frozen=True, slots=True)
class Policy:
    """How much is believed about time, and of absence.

    Attributes:
        most_back_s: that the director's time may lie behind the latest one: its servers' clocks differ a little.
        most_ahead_s: that it may lie ahead of it. A vehicle that was away for longer needs new factory roots.
        most_roots: that are followed in one session: 64 are decades of rotations, so that one session always does.
        longest_contact_s: between calls, whatever the director says: it can't send a vehicle away for good.
    """

    most_back_s: int = 300
    most_ahead_s: int = 5 * 365 * 86_400
    most_roots: int = 64
    longest_contact_s: float = 86_400.0


class ReleaseRefused(UpdateError):
    """The director's answer is believed, the release that it names is not.

    Attributes:
        assignment: without the release; what is stopped is stopped all the same.
    """

    def __init__(self, message: str, assignment: Assignment) -> None:
        super().__init__(message)
        self.assignment = assignment


class Trust:
    """What a vehicle believes; of one process.

    Args:
        disk: of the updates folder.
        director_root: that came with the vehicle, as image_root.
        vehicle: its name, as its certificate says.
        hardware: its class.

    Attributes:
        lost: why it began anew at the factory roots; "" where it did not, or never had more.

    Raises:
        UpdateError: the factory roots are none, or the disk can't be read.
    """

    def __init__(
        self,
        disk: Disk,
        director_root: bytes,
        image_root: bytes,
        vehicle: str,
        hardware: str,
        policy: Policy | None = None,
    ) -> None:
        self.lost = ""
        self._record = Record(disk, TRUST)
        self._vehicle, self._hardware = vehicle, hardware
        self._policy = policy or Policy()
        self._nonce: bytes | None = None
        self._opened: dict[bytes, Root] = {}
        factory = Remembered(Known.at(director_root), Known.at(image_root))
        self._root(director_root, "factory director root")
        self._root(image_root, "factory image root")
        self._remembered, self._is_new = self._read(factory)

    @staticmethod
    def of(disk: Disk, identity: Path, vehicle: str, hardware: str, policy: Policy | None = None) -> Trust:
        """Trust that begins at the roots in an identity folder.

        Raises:
            UpdateError: there are none, or they are none.
        """
        roots = []
        for name in (DIRECTOR_ROOT, IMAGE_ROOT):
            try:
                roots.append((identity / name).read_bytes())
            except OSError as error:
                raise UpdateError(f"{identity / name}: expected a TUF root, got {error.strerror}") from None
        return Trust(disk, roots[0], roots[1], vehicle, hardware, policy)

    @property
    def root_versions(self) -> tuple[int, int]:
        """Of the director's and the image repository's root, as a check-in tells them."""
        director, image = self._roots()
        return director.version, image.version

    def nonce(self) -> bytes:
        """For the next check-in; from now on only its answer is believed, and only once."""
        self._nonce = os.urandom(_NONCE_BYTES)
        return self._nonce

    def verified(self, response: CheckInResponse, cloud: Cloud, nonce: bytes, floor: int) -> Assignment:
        """What the vehicle is to do, once all of it is proven; what was seen is durable then.

        Args:
            response: to the check-in that `nonce` was sent with.
            cloud: gives the image repository's metadata.
            floor: the highest counter that was ever accepted.

        Raises:
            UpdateError: the answer is refused; one line says why. What runs goes on.
            OSError: the cloud can't be reached just now.
        """
        asked, self._nonce = self._nonce, None
        if asked is None or not hmac.compare_digest(asked, nonce):
            raise UpdateError(
                "director targets: expected an answer to the last nonce, which is taken once, got another"
            )
        self._note_loss(floor)
        self._follow(response)
        director_root, image_root = self._roots()
        seen = self._remembered
        director = metadata.top(
            "director",
            director_root,
            seen.director.versions,
            response.director_timestamp,
            lambda role, _: response.director_snapshot if role == "snapshot" else response.director_targets,
        )
        word = Word.of(director.targets)
        self._check(word, nonce)
        metadata.check_fresh(director, word.now, "director")
        seen = replace(
            seen,
            director=replace(seen.director, versions=director.versions),
            now_ns=max(seen.now_ns, word.now_ns),
            stop_number=word.stop_number,
        )
        assignment = self._assignment(word)
        if word.target is not None:
            try:
                release, versions = self._release(word, image_root, response.image_timestamp, cloud, floor)
            except UpdateError as error:
                raise ReleaseRefused(str(error), assignment) from None
            seen = replace(seen, image=replace(seen.image, versions=versions))
            assignment = replace(assignment, release=release)
        self._keep(seen)
        return assignment

    def _check(self, word: Word, nonce: bytes) -> None:
        if word.vehicle != self._vehicle:
            got = metadata.told(word.vehicle)
            raise UpdateError(f"director targets: expected an answer for {self._vehicle}, got one for {got}")
        if not hmac.compare_digest(word.nonce, nonce):
            raise UpdateError("director targets: expected the nonce of this check-in, got another: an old answer")
        last_ns, policy = self._remembered.now_ns, self._policy
        if last_ns and word.now_ns < last_ns - policy.most_back_s * _NS:
            behind_s = (last_ns - word.now_ns) // _NS
            raise UpdateError(f"director targets: expected a time at most {policy.most_back_s} s back, got {behind_s}")
        if last_ns and word.now_ns > last_ns + policy.most_ahead_s * _NS:
            ahead_s = (word.now_ns - last_ns) // _NS
            raise UpdateError(f"director targets: expected a time at most {policy.most_ahead_s} s on, got {ahead_s}")
        if word.stop_number < self._remembered.stop_number:
            raise UpdateError(
                f"director targets: expected stop notice {self._remembered.stop_number} or later, "
                f"got {word.stop_number}"
            )

    def _assignment(self, word: Word) -> Assignment:
        return Assignment(
            release=None,
            mode=word.mode,
            rollout=word.rollout,
            stop_number=word.stop_number,
            stopped=word.stopped,
            now_ns=word.now_ns,
            next_contact_s=min(word.next_contact_s, self._policy.longest_contact_s),
        )

    def _release(
        self, word: Word, root: Root, timestamp: bytes, cloud: Cloud, floor: int
    ) -> tuple[Release, dict[str, int]]:
        """The director's target as the image repository has it."""
        assert word.target is not None
        claim = Claim.of(word.target, "director targets")
        if claim.bundle in word.stopped:
            raise UpdateError(f"director targets: expected a bundle that is not stopped, got {claim.bundle[:12]}")
        image = metadata.top("image", root, self._remembered.image.versions, timestamp, cloud.image_metadata)
        metadata.check_fresh(image, word.now, "image")
        in_bin, target = metadata.in_bin("image", image, claim.path, cloud.image_metadata)
        metadata.check_not_expired(in_bin, word.now, "image bin")
        release = claims.agreed(claim, Claim.of(target, "image targets"), target, self._hardware, floor)
        return release, image.versions

    def _follow(self, response: CheckInResponse) -> None:
        """Keep newer roots at once; where keys were replaced, forget what a thief of the old ones could make up."""
        seen = self._remembered
        director, thieves = self._followed(seen.director, response.director_roots, "director root")
        if "targets" in thieves:
            seen = replace(seen, now_ns=0, stop_number=0)
        image, _ = self._followed(seen.image, response.image_roots, "image root")
        if director != seen.director or image != seen.image:
            self._keep(replace(seen, director=director, image=image))

    def _followed(self, known: Known, raws: Sequence[bytes], what: str) -> tuple[Known, frozenset[str]]:
        if len(raws) > self._policy.most_roots:
            raise UpdateError(f"{what}: expected at most {self._policy.most_roots} in one session, got {len(raws)}")
        root, replaced = self._root(known.root, what), frozenset[str]()
        for raw in raws:
            following = metadata.next_root(root, raw, what)
            replaced |= metadata.replaced(root, following)
            root, known = following, replace(known, root=raw)
        if "snapshot" in replaced:
            kept = {name: version for name, version in known.versions.items() if name == "timestamp"}
            known = replace(known, versions=kept)
        if "timestamp" in replaced:
            kept = {name: one for name, one in known.versions.items() if name not in ("timestamp", "snapshot")}
            known = replace(known, versions=kept)
        return known, replaced

    def _roots(self) -> tuple[Root, Root]:
        seen = self._remembered
        return self._root(seen.director.root, "director root"), self._root(seen.image.root, "image root")

    def _root(self, raw: bytes, what: str) -> Root:
        if raw not in self._opened:
            if len(self._opened) >= _MOST_OPENED:
                self._opened.clear()
            self._opened[raw] = metadata.trusted_root(raw, what)
        return self._opened[raw]

    def _read(self, factory: Remembered) -> tuple[Remembered, bool]:
        """What is remembered, and whether there never was anything."""
        try:
            content = self._record.read()
            if content is None:
                return factory, True
            self._record.hold()  # what a process that died wrote last may only seem to be there
            seen = Remembered.of(content)
            for known in (seen.director, seen.image):
                self._root(known.root, "remembered root")
        except RecordLost as error:
            self.lost = str(error)
            return factory, False
        except OSError as error:
            raise UpdateError(f"{TRUST}: can't be read: {error.strerror or error}") from None
        except UpdateError as error:
            self.lost = str(error)
            return factory, False
        # Other factory roots were put there by hand: what followed the old ones counts no more.
        if seen.director.factory != factory.director.factory:
            seen = replace(seen, director=factory.director, now_ns=0, stop_number=0)
        if seen.image.factory != factory.image.factory:
            seen = replace(seen, image=factory.image)
        return seen, False

    def _note_loss(self, floor: int) -> None:
        if self._is_new and floor > 0 and not self.lost:
            self.lost = f"{TRUST}: expected what was remembered, got no file, though release {floor} was accepted"

    def _keep(self, seen: Remembered) -> None:
        """Durable first, then believed."""
        try:
            self._record.write(seen.to_bytes())
        except OSError as error:
            raise UpdateError(f"{TRUST}: can't be written, so nothing is taken: {error.strerror or error}") from None
        self._remembered, self._is_new = seen, False
