"""The microphone of the world: sources, propagation and mixing."""
