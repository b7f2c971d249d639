"""Background prefetching: an iterator that runs in a thread, a bounded number of items ahead of its reader."""

import threading
from collections.abc import Generator
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(items: Generator[Item], ahead: int) -> Generator[Item]:
    """Computes items in a thread. However the iteration ends, the thread then has ended and `items` is closed: use
    `contextlib.closing`, which waits for the item being computed.

    Args:
        items: What is computed. An exception of theirs is raised here, after the items before it.
        ahead: Maximum number of items that wait to be taken, including the one being computed.
    """
    made: SimpleQueue[tuple[Item] | BaseException | None] = SimpleQueue()
    room = threading.Semaphore(ahead - 1)
    stopped = threading.Event()

    def make() -> None:
        end: BaseException | None = None
        try:
            for item in items:
                made.put((item,))
                del item  # while there is no room it would be one more
                room.acquire()
                if stopped.is_set():
                    break
            items.close()
        except BaseException as error:  # to be raised where the items are wanted
            end = error
        made.put(end)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while isinstance(item := made.get(), tuple):
            room.release()
            yield item[0]
            del item
        if item is not None:
            raise item
    finally:
        stopped.set()
        room.release()
        thread.join()
