"""Batches drawn ahead of their step."""

from concurrent.futures import ThreadPoolExecutor

from data.batches import Batch, Batches


class Prefetch:
    """Draws the next batch on a thread while this one trains."""

    def __init__(self, batches: Batches, start: int, stop: int) -> None:
        """Start on the batch of step `start`; `stop` is the first step that is never asked for."""
        self._batches, self._stop = batches, stop
        self._pool = ThreadPoolExecutor(1)
        self._next = self._pool.submit(batches.__getitem__, start)

    def __getitem__(self, step: int) -> Batch:
        """The batch of `step`; steps are asked for one after the other."""
        batch = self._next.result()
        if step + 1 < self._stop:
            self._next = self._pool.submit(self._batches.__getitem__, step + 1)
        return batch

    def __enter__(self) -> "Prefetch":
        """The batches themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing."""
        self._pool.shutdown(cancel_futures=True)
