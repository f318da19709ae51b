"""Releases: TUF repositories that say what exists and what each vehicle is to run."""
