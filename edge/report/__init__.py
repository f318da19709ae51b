"""One HTML page about a run: what was decided, on what it rested, and why."""
