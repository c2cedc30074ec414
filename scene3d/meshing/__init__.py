"""Meshes from scenes: fusion, level sets, finishing, textures, comparison with the truth."""
