"""Fit Gaussian splats to a posed capture."""

import tyro

from scene3d.stages.fit import Config, run

run(tyro.cli(Config, description=__doc__))
