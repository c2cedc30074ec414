"""Write a scene in another format."""

import tyro

from scene3d.stages.export import Config, run

run(tyro.cli(Config, description=__doc__))
