"""Data types: cameras, captures, Gaussians, scenes. No algorithms."""
