"""A fleet in a box: many simulated vehicles on the real interfaces, to rehearse a rollout."""
