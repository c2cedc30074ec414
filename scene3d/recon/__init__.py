"""Reconstruction: poses, initialisation, fitting."""
