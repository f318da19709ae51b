"""Everything that runs on the vehicle; the ground floor, which knows nothing of the other tiers."""
