"""Search: a query in any modality, scenes out, with the moment inside and why."""
