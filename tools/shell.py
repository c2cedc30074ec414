"""Put a shell around a scene, in which its rays are sampled."""

import tyro

from scene3d.stages.shell import Config, run

run(tyro.cli(Config, description=__doc__))
