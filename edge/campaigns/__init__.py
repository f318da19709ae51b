"""Campaigns on the vehicle: probes that the cloud signed, what matches them, and the bytes that they may spend."""
