"""Runs tasks on all cores, at most four of them: more would wait for one another at the file that is written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from converter.system.processes import processors

THREADS = max(1, min(4, processors()))


def in_parallel(
    tasks: Iterable[Callable[[], int]], advance: Callable[[int], None] = lambda _: None, threads: int = THREADS
) -> None:
    """Runs tasks on all cores; the first error stops the rest.

    Args:
        tasks: each returns how many bytes it dealt with.
        advance: called with that number after each task, by one thread at a time.
        threads: how many at once.
    """
    pending = iter(tasks)
    lock, stop = threading.Lock(), threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while not stop.is_set():
                with lock:
                    task = next(pending, None)
                if task is None:
                    return
                done = task()
                with lock:
                    advance(done)
        except BaseException as error:
            stop.set()
            errors.append(error)

    workers: list[threading.Thread] = []
    try:
        for _ in range(threads):
            worker = threading.Thread(target=work, name="move")
            worker.start()
            workers.append(worker)
        for worker in workers:
            worker.join()
    finally:  # also when this thread is interrupted
        stop.set()
        for worker in workers:
            worker.join()
    if errors:
        raise errors[0]
