"""Training of the reference model on the procedural world."""
