"""Pure functions on tensors, one idea a file."""
