"""`python -m scene3d` is `scene3d`."""

from scene3d.cli import main

raise SystemExit(main())
