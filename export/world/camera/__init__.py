"""The camera of the world: projection, drawing and film."""
