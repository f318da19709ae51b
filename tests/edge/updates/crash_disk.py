"""A pessimistic disk in memory, and every state that a power cut may leave it in.

Content that was not synced may be kept, lost, torn, emptied or zeroed, each file by itself. Names that were not synced
may be old or new, each change by itself and in any order; only a rename within one folder is one change. A sync of a
file says nothing of its name; a sync of a folder nothing of what is in its files.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Tree = dict[str, Any]  # name -> bytes, or a Tree


@dataclass(eq=False)
class File:
    """Content as programs see it, and what may be there after a cut."""

    now: bytes = b""
    durable: bytes = b""
    since: list[bytes] = field(default_factory=list)  # contents since the last sync

    def put(self, content: bytes) -> None:
        self.now = content
        self.since.append(content)

    def after_a_cut(self) -> list[bytes]:
        if not self.since:
            return [self.durable]
        last, half = self.now, len(self.now) // 2
        zeros = b"\0" * len(last)
        torn = [last[:half], last[:half] + zeros[half:], self.durable[:half] + last[half:], zeros, b""]
        return list(dict.fromkeys([self.durable, *self.since, *torn]))


Change = tuple[tuple[str, "File | Folder | None"], ...]


@dataclass(eq=False)
class Folder:
    """Names as programs see them, and the changes since the last sync."""

    now: dict[str, File | Folder] = field(default_factory=dict)
    durable: dict[str, File | Folder] = field(default_factory=dict)
    since: list[Change] = field(default_factory=list)

    def put(self, *change: tuple[str, File | Folder | None]) -> None:
        _apply(self.now, change)
        self.since.append(change)


def _apply(names: dict[str, File | Folder], change: Change) -> None:
    for name, node in change:
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class CrashDisk:
    """A Disk in memory.

    Args:
        tree: durable at the start.
        on_change: called after each change of what a cut may leave.
    """

    def __init__(self, tree: Tree | None = None, on_change: Callable[[CrashDisk], None] | None = None) -> None:
        self._root = _folder(tree or {})
        self.on_change = on_change

    def read(self, name: str) -> bytes:
        node = self._find(name)
        if not isinstance(node, File):
            raise FileNotFoundError(name)
        return node.now

    def size(self, name: str) -> int | None:
        node = self._find(name)
        return len(node.now) if isinstance(node, File) else None

    def digest(self, name: str) -> bytes | None:
        node = self._find(name)
        return hashlib.sha256(node.now).digest() if isinstance(node, File) else None

    def write(self, name: str, content: bytes) -> None:
        file = self._made(name)
        if file.now:
            file.put(b"")
        file.put(content)
        self._changed()

    def append(self, name: str, offset: int, content: bytes) -> None:
        file = self._made(name)
        file.put(file.now[:offset].ljust(offset, b"\0") + content)
        self._changed()

    def sync(self, name: str) -> None:
        file = self._find(name)
        if isinstance(file, Folder):
            self.sync_folder(name)
            return
        if file is None:
            raise FileNotFoundError(name)
        file.durable, file.since = file.now, []
        self._changed()

    def rename(self, old: str, new: str) -> None:
        (source, was), (target, will) = self._place(old), self._place(new)
        if was not in source.now:
            raise FileNotFoundError(old)
        node, there = source.now[was], target.now.get(will)
        if isinstance(there, Folder) and (there.now or isinstance(node, File)):
            raise OSError(39, f"in the way: {new}")
        if source is target:
            source.put((was, None), (will, node))
        else:
            source.put((was, None))
            target.put((will, node))
        self._changed()

    def sync_folder(self, name: str) -> None:
        folder = self._find(name)
        if not isinstance(folder, Folder):
            raise FileNotFoundError(name)
        folder.durable, folder.since = dict(folder.now), []
        self._changed()

    def make_folder(self, name: str) -> None:
        folder = self._root
        for part in name.split("/"):
            found = folder.now.get(part)
            if found is None:
                found = Folder()
                folder.put((part, found))
                self._changed()
            assert isinstance(found, Folder)
            folder = found

    def remove(self, name: str) -> None:
        node = self._find(name)
        if node is None:
            return
        if isinstance(node, Folder):
            for inner in sorted(node.now):
                self.remove(f"{name}/{inner}")
        folder, last = self._place(name)
        folder.put((last, None))
        self._changed()

    def list(self, name: str) -> list[str]:
        node = self._find(name)
        return sorted(node.now) if isinstance(node, Folder) else []

    def path(self, name: str) -> Path:
        raise NotImplementedError("a disk in memory has no paths")

    def tree(self) -> Tree:
        """As programs see it."""
        return _seen(self._root)

    def states(self, most: int, chance: random.Random) -> Iterator[Tree]:
        """What a cut at this instant may leave: all of it up to so many states, else so many by chance."""
        folders = _dirty_folders(self._root)
        subsets = [_subsets(len(folder.since), most, chance) for folder in folders]
        if _product(subsets) > most:
            picks: Iterator[tuple[Any, ...]] = (tuple(chance.choice(s) for s in subsets) for _ in range(most))
        else:
            picks = itertools.product(*subsets)
        given = 0
        for pick in picks:
            names = {id(folder): _names(folder, applied) for folder, applied in zip(folders, pick)}
            files = _dirty_files(self._root, names)
            contents = [file.after_a_cut() for file in files]
            left = most - given
            if _product(contents) > left:
                chosen: Iterator[tuple[bytes, ...]] = (tuple(chance.choice(c) for c in contents) for _ in range(left))
            else:
                chosen = itertools.product(*contents)
            for content in chosen:
                yield _left(self._root, names, {id(file): c for file, c in zip(files, content)})
                given += 1
            if given >= most:
                return

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change(self)

    def _find(self, name: str) -> File | Folder | None:
        node: File | Folder | None = self._root
        for part in name.split("/") if name else []:
            node = node.now.get(part) if isinstance(node, Folder) else None
        return node

    def _place(self, name: str) -> tuple[Folder, str]:
        above, _, last = name.rpartition("/")
        folder = self._find(above)
        if not isinstance(folder, Folder):
            raise FileNotFoundError(above)
        return folder, last

    def _made(self, name: str) -> File:
        folder, last = self._place(name)
        file = folder.now.get(last)
        if file is None:
            file = File()
            folder.put((last, file))
        assert isinstance(file, File), name
        return file


class WithoutSync(CrashDisk):
    """The same disk under a program that never waits for it, which shows that the model finds what that breaks."""

    def sync(self, name: str) -> None:
        self._changed()

    def sync_folder(self, name: str) -> None:
        self._changed()


def flat(tree: Tree, prefix: str = "") -> dict[str, bytes]:
    """All files by path."""
    found: dict[str, bytes] = {}
    for name, node in tree.items():
        if isinstance(node, bytes):
            found[prefix + name] = node
        else:
            found |= flat(node, f"{prefix}{name}/")
    return found


def _subsets(changes: int, most: int, chance: random.Random) -> list[tuple[bool, ...]]:
    """Which of so many changes are there; all there may be, or the two ends and some by chance."""
    if 1 << changes <= most:
        return list(itertools.product((False, True), repeat=changes))
    some = [tuple(chance.random() < 0.5 for _ in range(changes)) for _ in range(most - 2)]
    return [(False,) * changes, (True,) * changes, *some]


def _product(choices: list[Any]) -> int:
    total = 1
    for choice in choices:
        total *= len(choice)
    return total


def _folder(tree: Tree) -> Folder:
    names: dict[str, File | Folder] = {
        name: File(node, node) if isinstance(node, bytes) else _folder(node) for name, node in tree.items()
    }
    return Folder(dict(names), names)


def _names(folder: Folder, applied: tuple[bool, ...]) -> dict[str, File | Folder]:
    names = dict(folder.durable)
    for change, is_applied in zip(folder.since, applied):
        if is_applied:
            _apply(names, change)
    return names


def _dirty_folders(folder: Folder, seen: set[int] | None = None) -> list[Folder]:
    """All that any state may reach."""
    seen = set() if seen is None else seen
    if id(folder) in seen:
        return []
    seen.add(id(folder))
    found = [folder] if folder.since else []
    inner = [*folder.durable.values(), *(node for change in folder.since for _, node in change)]
    for node in inner:
        if isinstance(node, Folder):
            found += _dirty_folders(node, seen)
    return found


def _dirty_files(folder: Folder, names: dict[int, dict[str, File | Folder]]) -> list[File]:
    found: dict[int, File] = {}
    for node in names.get(id(folder), folder.durable).values():
        if isinstance(node, Folder):
            found |= {id(file): file for file in _dirty_files(node, names)}
        elif node.since:
            found[id(node)] = node
    return list(found.values())


def _left(folder: Folder, names: dict[int, dict[str, File | Folder]], contents: dict[int, bytes]) -> Tree:
    return {
        name: _left(node, names, contents) if isinstance(node, Folder) else contents.get(id(node), node.durable)
        for name, node in names.get(id(folder), folder.durable).items()
    }


def _seen(folder: Folder) -> Tree:
    return {name: _seen(node) if isinstance(node, Folder) else node.now for name, node in folder.now.items()}
