"""The live viewer: our own renderer streamed to a browser. What is drawn is decided here; viser shows it."""
