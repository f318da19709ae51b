"""What a drive teaches about a model or a rig: int8 ranges, confidence, sensor geometry, clock offsets."""
