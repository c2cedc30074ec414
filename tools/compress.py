"""Make a scene small: an .s3d file at a stated quality or size."""

import tyro

from scene3d.stages.compress import Config, run

run(tyro.cli(Config, description=__doc__))
