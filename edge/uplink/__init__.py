"""The way up: an outbox that forgets nothing, and the process that hands its scenes to a cloud."""
