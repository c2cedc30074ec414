"""Bytes to core types and back, one file per format."""
