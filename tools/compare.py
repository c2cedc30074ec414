"""Say how two scenes differ."""

import tyro

from scene3d.stages.compare import Config, run

run(tyro.cli(Config, description=__doc__))
