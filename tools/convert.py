"""Edit a scene and write it in any format."""

import tyro

from scene3d.stages.convert import Config, run

run(tyro.cli(Config, description=__doc__))
