"""Look at a scene in the browser."""

import tyro

from scene3d.stages.view import Config, run

run(tyro.cli(Config, description=__doc__))
