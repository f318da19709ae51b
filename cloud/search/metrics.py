"""What search measures, for Prometheus."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

SECONDS: Final = Histogram(
    "roadfuse_search_seconds",
    "From a query to its answers, s, by the path that found them.",
    ["path"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
)
ERRORS: Final = Counter("roadfuse_search_errors", "Queries that were not answered.", ["reason"])
TOGETHER: Final = Histogram(
    "roadfuse_search_together", "Queries answered in one go.", buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
ROWS: Final = Gauge("roadfuse_search_rows", "Moments that can be found.")
SCENES: Final = Gauge("roadfuse_search_scenes", "Scenes that can be found.")
INDEXED: Final = Gauge("roadfuse_search_indexed_rows", "Moments that the index knows.")
INDEX_RECALL: Final = Gauge("roadfuse_search_index_recall", "Recall at 10 that the index was built with.")
BUILD_SECONDS: Final = Gauge("roadfuse_search_index_build_seconds", "That the last index took to build.")
LOOK_AGE: Final = Gauge("roadfuse_search_mirror_age_seconds", "Since the mirror last saw the database.")
AUDITED: Final = Counter("roadfuse_search_audited", "Live queries that were repeated exactly by the database.")
AUDIT_RECALL: Final = Gauge("roadfuse_search_audit_recall", "Of what exact search finds, the share found, of late.")
AUDIT_FAILED: Final = Counter("roadfuse_search_audit_failed", "Audits that the database did not finish.")
