"""Find the cameras of plain photos or of a video: the script form of `scene3d pose`."""

import tyro

from scene3d.stages import pose

if __name__ == "__main__":
    pose.run(tyro.cli(pose.Config, description=pose.__doc__))
