"""Readings drawn ahead of their step."""

from concurrent.futures import ThreadPoolExecutor

from distill.reading import Reading, Readings


class Prefetch:
    """Draws the next reading on a thread while this one trains."""

    def __init__(self, readings: Readings, start: int, stop: int) -> None:
        """Start on the batch of step `start`; `stop` is the first step that is never asked for."""
        self._readings, self._stop = readings, stop
        self._pool = ThreadPoolExecutor(1)
        self._next = self._pool.submit(readings.__getitem__, start)

    def __getitem__(self, step: int) -> Reading:
        """The reading of `step`; steps are asked for one after the other."""
        reading = self._next.result()
        if step + 1 < self._stop:
            self._next = self._pool.submit(self._readings.__getitem__, step + 1)
        return reading

    def __enter__(self) -> "Prefetch":
        """The readings themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing."""
        self._pool.shutdown(cancel_futures=True)
