"""What the web server measures, for Prometheus."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

PAGE_S: Final = Histogram(
    "roadfuse_page_seconds",
    "From a request to its answer, s, by page and status; a file's bytes may still be on their way.",
    ["page", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
)
STREAMS: Final = Gauge("roadfuse_page_streams", "Pages that listen for news of jobs.")
WRONG_KEYS: Final = Counter("roadfuse_wrong_keys", "Sign-ins that were refused.")
