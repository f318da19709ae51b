"""Encoders of text, pictures, clips, sound, motion and LiDAR as one service."""
