"""What the encoders' service counts, for Prometheus."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

HITS: Final = Counter("roadfuse_embed_cache_hits", "Vectors found in a cache.", ["level", "modality"])
MISSES: Final = Counter("roadfuse_embed_cache_misses", "Vectors found in no cache.", ["modality"])
SHARED: Final = Counter("roadfuse_embed_shared", "Items that waited for an equal one under way.", ["modality"])
CORRUPT: Final = Counter("roadfuse_embed_cache_corrupt", "Entries that were found damaged, and dropped.", ["level"])
UNWRITTEN: Final = Counter(
    "roadfuse_embed_cache_unwritten", "Entries that a cache refused, or was too slow for.", ["level"]
)
UNANSWERED: Final = Counter("roadfuse_embed_cache_unanswered", "Calls of Redis that it refused, or was too slow for.")
CACHE_BYTES: Final = Gauge("roadfuse_embed_cache_bytes", "Kept in a cache.", ["level"])
BATCHES: Final = Counter("roadfuse_embed_batches", "Calls of an encoder.", ["modality"])
BATCH_ITEMS: Final = Histogram(
    "roadfuse_embed_batch_items", "Items in a call of an encoder.", ["modality"], buckets=(1, 2, 4, 8, 16, 32, 64)
)
DEPTH: Final = Gauge("roadfuse_embed_queue_depth", "Items that wait for an encoder.", ["modality"])
SECONDS: Final = Histogram(
    "roadfuse_embed_seconds",
    "From an item's arrival to its answer, s.",
    ["modality"],
    buckets=(0.0001, 0.0003, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
)
ERRORS: Final = Counter("roadfuse_embed_errors", "Items that were not embedded.", ["modality", "status"])
