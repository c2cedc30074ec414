"""Keep a mesh as signed distances in a small file, or mesh such a file."""

import tyro

from scene3d.stages.sdf import Config, run

run(tyro.cli(Config, description=__doc__))
