"""Turn a scene into a mesh with texture."""

import tyro

from scene3d.stages.mesh import Config, run

run(tyro.cli(Config, description=__doc__))
