"""Measure a scene against the held-out photos of its capture."""

import tyro

from scene3d.stages.evaluate import Config, run

run(tyro.cli(Config, description=__doc__))
