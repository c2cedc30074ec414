"""Commands: one Config and run() a file."""
