"""Alignment in time, in space and in meaning: whether what the sensors say is the same event, instant and place."""
