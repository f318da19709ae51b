"""Rollouts: a release reaches the fleet wave by wave, on evidence."""
