"""A drive and its decisions in Rerun; needs the extra `viz`."""
