"""zstd frames of which the length is known before they are unfolded, alone or with a file as dictionary."""

from __future__ import annotations

from typing import Any, Final

import zstandard

LEVEL: Final = 19
_LONGEST_WINDOW: Final = 31
_USUAL_BITS: Final = 23


def shrunk(content: bytes, base: bytes = b"") -> bytes:
    """The frame of some bytes; what the base has too costs next to nothing."""
    bits = (len(base) + len(content)).bit_length()
    options: dict[str, Any] = {"window_log": min(max(bits, 10), _LONGEST_WINDOW)}
    if bits > _USUAL_BITS:  # the level's own tables would forget the beginning of the base
        options |= {"chain_log": min(bits + 1, 30), "hash_log": min(bits - 1, 30)}
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, source_size=len(content), dict_size=len(base), **options
    )
    return zstandard.ZstdCompressor(dict_data=_dictionary(base), compression_params=parameters).compress(content)


def unfolded(frame: bytes | memoryview, length: int, base: bytes = b"") -> bytes:
    """The bytes of a frame that has exactly `length` of them; no more memory than that is taken for it.

    Raises:
        ValueError: it says that it has another length.
        zstandard.ZstdError: it is damaged, or needs another base.
    """
    told = zstandard.get_frame_parameters(bytes(frame[:32])).content_size
    if told != length:
        raise ValueError(f"expected a frame of {length} bytes, got one of {told if told < 1 << 62 else 'any length'}")
    if not length:
        return b""
    unfold: Any = zstandard.ZstdDecompressor(dict_data=_dictionary(base), max_window_size=1 << _LONGEST_WINDOW)
    content: bytes = unfold.decompress(frame, max_output_size=length)
    if len(content) != length:
        raise ValueError(f"expected {length} bytes in a frame, got {len(content)}")
    return content


def _dictionary(base: bytes) -> zstandard.ZstdCompressionDict | None:
    return zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if base else None
