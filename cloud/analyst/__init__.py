"""What the cloud makes of a clip: labels, captions, a report, and where the vehicle was wrong."""
