"""Files of a release become a bundle on board: fetched one by one, verified, renamed into place once all are durable.

    bundles/.ID.part/   under way; a power cut leaves it, and what is right in it is not fetched again
    bundles/ID/         whole
    bundles/.ID.gone/   on its way out

So what has its own name under bundles/ is whole, whatever instant the power fails at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Protocol

from edge.errors import UpdateError
from edge.updates.assignment import Release, TargetFile
from edge.updates.disk import Disk
from edge.updates.slots import BUNDLES, PARTS, folder_of


class Fetches(Protocol):
    """Gets files; edge/updates/fetch.py."""

    def fetch(self, file: TargetFile, have: Mapping[bytes, str]) -> str:
        """The name of the finished, durable part with this content.

        Args:
            have: SHA-256 -> name of files on board, which a difference may be built on.

        Raises:
            UpdateError: the bytes are not what was signed.
            OSError: trying again may help.
        """


class Installer:
    """Puts bundles on board and takes them off.

    Args:
        fetcher: gets the files.
        reference: SHA-256 -> name of the files of the bundle that "" names, which differences may be built on.
    """

    def __init__(self, disk: Disk, fetcher: Fetches, reference: Mapping[bytes, str] | None = None) -> None:
        self._disk, self._fetcher, self._reference = disk, fetcher, dict(reference or {})

    def install(self, release: Release, bases: Iterable[str]) -> None:
        """Have a release on board, whole and durable; goes on from wherever it was cut off.

        Args:
            bases: bundles on board whose files differences may be built on.

        Raises:
            UpdateError: what came is not what was signed.
            OSError: trying again may help.
        """
        disk, folder = self._disk, folder_of(release.bundle)
        if self.is_release(folder, release):
            disk.sync_folder(BUNDLES)  # the rename may have been the last thing before a power cut
            return
        part = _hidden(release.bundle, "part")
        for name in (BUNDLES, part, PARTS):
            disk.make_folder(name)
        disk.sync_folder("")
        disk.sync_folder(BUNDLES)
        have = self._have(bases)
        for file in release.files:
            self._place(part, file, have)
        for extra in set(disk.list(part)) - {file.name for file in release.files}:
            disk.remove(f"{part}/{extra}")
        for file in release.files:
            disk.sync(f"{part}/{file.name}")
        disk.sync_folder(part)
        if not self.is_release(part, release):
            raise UpdateError(f"release {release.counter}: expected its files on board, got others")
        self._put_away(release.bundle)
        disk.rename(part, folder)
        disk.sync_folder(BUNDLES)

    def is_release(self, folder: str, release: Release) -> bool:
        """Whether a folder holds just the files of a release."""
        disk = self._disk
        return disk.list(folder) == sorted(file.name for file in release.files) and all(
            disk.size(f"{folder}/{file.name}") == file.length and disk.digest(f"{folder}/{file.name}") == file.sha256
            for file in release.files
        )

    def tidy(self, kept: Iterable[str], *, keeps_parts: bool) -> None:
        """Remove bundles that are in no slot, what was left under way, and parts that nobody waits for.

        Args:
            kept: bundles that stay.
            keeps_parts: something is being fetched.

        Raises:
            OSError: the disk refused.
        """
        disk, stays, names = self._disk, set(kept), self._disk.list(BUNDLES)
        if any(name.startswith(".") for name in names):
            disk.sync_folder(BUNDLES)  # a process that died may have taken a name away that a power cut brings back
        for name in names:
            if name.startswith("."):
                if name.removeprefix(".").partition(".")[0] not in stays or name.endswith(".gone"):
                    disk.remove(f"{BUNDLES}/{name}")
            elif name not in stays:
                self._put_away(name)
        for name in () if keeps_parts else disk.list(PARTS):
            disk.remove(f"{PARTS}/{name}")

    def _place(self, part: str, file: TargetFile, have: Mapping[bytes, str]) -> None:
        disk, name = self._disk, f"{part}/{file.name}"
        if disk.size(name) == file.length and disk.digest(name) == file.sha256:
            return
        twin = next((t for t in disk.list(part) if t != file.name and disk.digest(f"{part}/{t}") == file.sha256), None)
        if twin is not None:
            disk.write(name, disk.read(f"{part}/{twin}"))
            return
        fetched = self._fetcher.fetch(file, have)
        disk.sync(fetched)
        disk.rename(fetched, name)

    def _have(self, bases: Iterable[str]) -> dict[bytes, str]:
        have: dict[bytes, str] = {}
        for bundle in bases:
            if not bundle:
                have |= self._reference
                continue
            with suppress(OSError):  # no difference is built on what can't be read; the files come all the same
                for name in self._disk.list(folder_of(bundle)):
                    path = f"{folder_of(bundle)}/{name}"
                    with suppress(OSError):
                        digest = self._disk.digest(path)
                        if digest is not None:
                            have[digest] = path
        return have

    def _put_away(self, bundle: str) -> None:
        """A bundle loses its name before its files go: what has a name is whole."""
        disk = self._disk
        if bundle in disk.list(BUNDLES):
            gone = _hidden(bundle, "gone")
            disk.remove(gone)
            disk.rename(folder_of(bundle), gone)
            disk.sync_folder(BUNDLES)
            disk.remove(gone)


def _hidden(bundle: str, suffix: str) -> str:
    return f"{BUNDLES}/.{bundle}.{suffix}"
