"""The cloud tier: ingest, analysis, search, releases and rollouts. Nothing here runs on a vehicle."""
