"""The procedural world: one seeded 3-D road scene, rendered consistently into every sensor stream."""
