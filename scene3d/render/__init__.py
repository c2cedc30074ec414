"""Images from scenes: one `rasterize` over several backends."""
