"""Photos in memory up to a number of bytes, least recently used out first, and one thread that decodes ahead."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from scene3d.core.capture import Photo


class PhotoCache:
    """Reads photo i at most once while it is in memory. Safe to call from several threads.

    Args:
        read: Reads photo i from disk.
        max_bytes: Photos kept take at most this much; one that is larger by itself is handed out and not kept.
    """

    def __init__(self, read: Callable[[int], Photo], max_bytes: int) -> None:
        self._read = read
        self._max_bytes = max_bytes
        self._photos: OrderedDict[int, Photo] = OrderedDict()
        self._size_bytes = 0
        self._pending: dict[int, Future[Photo]] = {}
        self._lock = threading.Lock()
        self._worker: ThreadPoolExecutor | None = None

    @property
    def size_bytes(self) -> int:
        """Memory that the photos kept take."""
        return self._size_bytes

    def load(self, i: int) -> Photo:
        """Photo i; waits where the thread has begun to read it.

        Raises:
            CaptureError: it cannot be read, now or when it was read ahead.
        """
        with self._lock:
            photo = self._photos.get(i)
            if photo is not None:
                self._photos.move_to_end(i)
                return photo
            future = self._pending.get(i)
        if future is not None and not future.cancel():
            return future.result()
        photo = self._read(i)
        self._keep(i, photo)
        return photo

    def prefetch(self, indices: Sequence[int]) -> None:
        """Read photos ahead, in this order, as far as they are not in memory; errors come with load.

        Call it with the next few photos only: what is read too early may be dropped again before it is used.
        """
        with self._lock:
            for i in indices:
                pending = self._pending.get(i)
                if i in self._photos or (pending is not None and not pending.cancelled()):
                    continue
                if self._worker is None:
                    self._worker = ThreadPoolExecutor(1, thread_name_prefix="photos")
                self._pending[i] = self._worker.submit(self._read_ahead, i)

    def _read_ahead(self, i: int) -> Photo:
        try:
            photo = self._read(i)
        except BaseException:
            # Leave no failed future behind: the next load tries again and raises in its caller.
            with self._lock:
                self._pending.pop(i, None)
            raise
        self._keep(i, photo)
        return photo

    def _keep(self, i: int, photo: Photo) -> None:
        with self._lock:
            self._pending.pop(i, None)
            if i in self._photos or photo_bytes(photo) > self._max_bytes:
                return
            self._photos[i] = photo
            self._size_bytes += photo_bytes(photo)
            while self._size_bytes > self._max_bytes:
                _, dropped = self._photos.popitem(last=False)
                self._size_bytes -= photo_bytes(dropped)


def photo_bytes(photo: Photo) -> int:
    """Memory of a photo."""
    return sum(value.numel() for value in (photo.rgb, photo.alpha, photo.mask) if value is not None)
