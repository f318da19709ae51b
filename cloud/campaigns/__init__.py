"""Queries that travel to the vehicles: signed probes, and what comes back."""
