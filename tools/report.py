"""Build the HTML page of a run."""

import tyro

from scene3d.stages.report import Config, run

run(tyro.cli(Config, description=__doc__))
