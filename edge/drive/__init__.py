"""Drives: recordings as MCAP files, written so that a kill loses at most a second, read so that nothing hostile hurts."""
