"""The caches keep what they were given, within their bounds; a damaged entry is found, counted and dropped."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from prometheus_client import REGISTRY

from cloud.embed.cache import _BLOCK_BYTES, _ENTRY_BYTES, DiskCache, MemoryCache, key_of
from cloud.embed.item import Item, Vector

from .test_batching import vector


class Clock:
    """Unix time that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def key(name: bytes) -> bytes:
    return key_of(Item("image", name), "s", "m", 1)


def corrupt() -> float:
    return REGISTRY.get_sample_value("roadfuse_embed_cache_corrupt_total", {"level": "disk"}) or 0.0


def unwritten() -> float:
    return REGISTRY.get_sample_value("roadfuse_embed_cache_unwritten_total", {"level": "disk"}) or 0.0


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["text", "image"]),
            st.binary(max_size=8),
            st.sampled_from("sS"),
            st.sampled_from("mM"),
            st.integers(1, 2),
        ),
        unique=True,
    )
)
def test_keys_differ_in_content_modality_space_model_and_preprocessing(named: list[tuple]) -> None:
    keys = [
        key_of(Item(modality, content), space, model, version) for modality, content, space, model, version in named
    ]
    assert len(set(keys)) == len(keys)


class Memory(RuleBasedStateMachine):
    """Against a dict in the order of use."""

    SIZE = len(vector(b"").values) + _ENTRY_BYTES
    ROOM = 3

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.cache = MemoryCache(self.ROOM * self.SIZE + 7, 100.0, self.clock)
        self.model: dict[bytes, tuple[float, Vector]] = {}

    names = st.sampled_from([bytes([i]) for i in range(6)])

    @rule(name=names)
    def put(self, name: bytes) -> None:
        self.model.pop(name, None)
        self.model[name] = self.clock.now_s, vector(name)
        self.cache.put(key(name), vector(name))
        while len(self.model) > self.ROOM:
            del self.model[next(iter(self.model))]

    @rule(name=names)
    def get(self, name: bytes) -> None:
        known = self.model.pop(name, None)
        if known is not None and self.clock.now_s - known[0] <= 100.0:
            self.model[name] = known
            assert self.cache.get(key(name)) == known[1]
        else:
            assert self.cache.get(key(name)) is None

    @rule(seconds=st.sampled_from([1.0, 60.0, 200.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds

    @invariant()
    def bounded(self) -> None:
        assert self.cache.bytes == len(self.model) * self.SIZE <= self.ROOM * self.SIZE + 7


TestMemory = Memory.TestCase
TestMemory.settings = settings(max_examples=30, stateful_step_count=20)


def test_what_was_used_last_stays_longest(clock: Clock) -> None:
    cache = MemoryCache(Memory.ROOM * Memory.SIZE, 100.0, clock)
    for name in (b"a", b"b", b"c"):
        cache.put(key(name), vector(name))
    assert cache.get(key(b"a")) is not None
    cache.put(key(b"d"), vector(b"d"))
    assert [name for name in (b"a", b"b", b"c", b"d") if cache.get(key(name))] == [b"a", b"c", b"d"]


def test_what_is_kept_comes_back_to_another_process_with_its_instant(tmp_path: Path, clock: Clock) -> None:
    kept = Vector(vector(b"x").values, "s" * 64, "m" * 64, "video", 1_003_650_000_000)
    DiskCache(tmp_path, 1 << 20, 100.0, clock).put(key(b"x"), kept)
    again = DiskCache(tmp_path, 1 << 20, 100.0, clock)
    assert again.get(key(b"x")) == kept and again.get(key(b"y")) is None
    assert again.bytes == _BLOCK_BYTES


@pytest.mark.parametrize("at", [0, 9, 20, 60, 100, -33, -1])
def test_a_flipped_bit_is_found_counted_and_dropped(tmp_path: Path, clock: Clock, at: int) -> None:
    cache = DiskCache(tmp_path, 1 << 20, 100.0, clock)
    cache.put(key(b"x"), vector(b"x"))
    (path,) = entries(tmp_path)
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)
    before = corrupt()
    assert cache.get(key(b"x")) is None and corrupt() == before + 1
    assert not path.exists() and cache.bytes == 0
    assert cache.get(key(b"x")) is None and corrupt() == before + 1
    cache.put(key(b"x"), vector(b"x"))
    assert cache.get(key(b"x")) == vector(b"x")


@pytest.mark.parametrize("content", [b"", b"short", bytes(1000), bytes(1 << 20)])
def test_a_file_that_is_no_entry_is_dropped(tmp_path: Path, clock: Clock, content: bytes) -> None:
    cache = DiskCache(tmp_path, 1 << 20, 100.0, clock)
    cache.put(key(b"x"), vector(b"x"))
    entries(tmp_path)[0].write_bytes(content)
    before = corrupt()
    assert cache.get(key(b"x")) is None and corrupt() == before + 1 and not entries(tmp_path)


def test_an_entry_under_another_name_is_not_believed(tmp_path: Path, clock: Clock) -> None:
    cache = DiskCache(tmp_path, 1 << 20, 100.0, clock)
    cache.put(key(b"x"), vector(b"x"))
    cache.put(key(b"y"), vector(b"y"))
    of = {path.parent.name + path.name: path for path in entries(tmp_path)}
    of[key(b"x").hex()].write_bytes(of[key(b"y").hex()].read_bytes())
    before = corrupt()
    assert cache.get(key(b"x")) is None and corrupt() == before + 1
    assert cache.get(key(b"y")) == vector(b"y")


def test_an_old_entry_and_one_from_the_future_are_not_found(tmp_path: Path, clock: Clock) -> None:
    cache = DiskCache(tmp_path, 1 << 20, 100.0, clock)
    cache.put(key(b"x"), vector(b"x"))
    clock.now_s += 99
    assert cache.get(key(b"x")) == vector(b"x")
    clock.now_s += 2
    assert cache.get(key(b"x")) is None and not entries(tmp_path) and cache.bytes == 0
    cache.put(key(b"x"), vector(b"x"))
    clock.now_s -= 1000
    assert cache.get(key(b"x")) is None


def test_the_oldest_make_room_also_those_of_an_earlier_process(tmp_path: Path, clock: Clock) -> None:
    first = DiskCache(tmp_path, 1 << 20, 1e9, clock)
    for number in range(10):
        first.put(key(bytes([number])), vector(bytes([number])))
    second = DiskCache(tmp_path, 8 * _BLOCK_BYTES, 1e9, clock)
    for number in range(10, 14):
        second.put(key(bytes([number])), vector(bytes([number])))
    assert second.bytes <= 8 * _BLOCK_BYTES and len(entries(tmp_path)) == 8
    assert [number for number in range(14) if second.get(key(bytes([number])))] == list(range(6, 14))


def test_processes_that_share_a_folder_keep_its_bound_together(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.embed.cache._BETWEEN_LOOKS", 4)
    both = [DiskCache(tmp_path, 8 * _BLOCK_BYTES, 1e9, clock) for _ in range(2)]
    for number in range(40):
        both[number % 2].put(key(bytes([number])), vector(bytes([number])))
        assert len(entries(tmp_path)) <= 8 + 4
    assert both[1].get(key(bytes([39]))) is not None


def test_a_folder_that_can_not_be_looked_at_is_written_to_all_the_same(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.embed.cache._BETWEEN_LOOKS", 1)
    kept = DiskCache(tmp_path, 1 << 20, 1e9, clock)

    def scandir(_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("cloud.embed.cache.os.scandir", scandir)
    kept.put(key(b"x"), vector(b"x"))
    assert kept.get(key(b"x")) == vector(b"x") and kept.bytes == _BLOCK_BYTES


def test_half_written_entries_are_never_read_and_go_in_the_end(tmp_path: Path, clock: Clock) -> None:
    cache = DiskCache(tmp_path, 1 << 20, 1e9, clock)
    cache.put(key(b"x"), vector(b"x"))
    part = entries(tmp_path)[0].with_suffix(".0000.part")
    part.write_bytes(b"half")
    clock.now_s = part.stat().st_mtime + 10
    assert DiskCache(tmp_path, 1 << 20, 1e9, clock).bytes == _BLOCK_BYTES and part.exists()
    clock.now_s += 2 * 86_400
    assert DiskCache(tmp_path, 1 << 20, 1e9, clock).bytes == _BLOCK_BYTES and not part.exists()


def test_a_disk_that_refuses_is_counted_and_nothing_else_happens(tmp_path: Path, clock: Clock) -> None:
    cache = DiskCache(tmp_path, 1 << 20, 100.0, clock)
    name = key(b"x").hex()
    (tmp_path / name[:2]).write_bytes(b"in the way")
    before = unwritten()
    cache.put(key(b"x"), vector(b"x"))
    assert cache.get(key(b"x")) is None and unwritten() == before + 1 and cache.bytes == 0
