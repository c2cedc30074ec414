"""How fine pictures are drawn: coarse enough to follow the hand while the view moves, sharp when it rests."""

from __future__ import annotations

# Seconds a moving picture may take: with encoding and the way to the browser, 15 a second and more.
MOVING_SECONDS = 0.045
# No coarser than this share of the sides: what moves must still be recognised.
MIN_SHARE = 0.25
# Shares follow a change of pace by at most this factor a picture, so that one hiccup does not blur the view.
MAX_CHANGE = 1.5


class Pace:
    """Chooses the size of moving pictures by how long the last ones took.

    Args:
        seconds: That a moving picture may take.
        share: Of the sides, to begin with.
    """

    def __init__(self, seconds: float = MOVING_SECONDS, share: float = 0.5) -> None:
        self.seconds = seconds
        self.share = share

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Pixels of the next moving picture in a window of that size."""
        return max(1, round(width * self.share)), max(1, round(height * self.share))

    def took(self, seconds: float) -> None:
        """Note how long a moving picture took."""
        # Time goes with the number of pixels, which is the square of the share, plus a part that does not shrink.
        change = (self.seconds / max(seconds, 1e-4)) ** 0.5
        change = min(max(change, 1 / MAX_CHANGE), MAX_CHANGE)
        self.share = min(max(self.share * change, MIN_SHARE), 1.0)
