"""Model updates on the vehicle: fetched, verified, tried beside the old one, and taken back when they do worse."""
