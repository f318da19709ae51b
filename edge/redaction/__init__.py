"""Redaction: faces, plates and voices are covered before a clip leaves the vehicle."""
