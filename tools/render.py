"""Render images or a video of a scene."""

import tyro

from scene3d.stages.render import Config, run

run(tyro.cli(Config, description=__doc__))
