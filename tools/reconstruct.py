"""Photos, a video or a posed capture to a scene, its scores, pictures and a report."""

import tyro

from scene3d.stages.run import Config, run

run(tyro.cli(Config, description=__doc__))
