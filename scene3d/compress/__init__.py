"""Smaller scenes: importance, pruning, codebooks, grids, colour fields, and the codecs that store them."""
