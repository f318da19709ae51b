"""Drives: MCAP recordings, written so that a kill loses at most a second, read so that nothing hostile hurts."""
