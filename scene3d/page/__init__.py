"""One self-contained web page of a scene: viewer, scene, poster and licence in a file that opens from disk, offline."""
