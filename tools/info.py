"""Say what is in a scene file or in a capture."""

import tyro

from scene3d.stages.info import Config, run

run(tyro.cli(Config, description=__doc__))
