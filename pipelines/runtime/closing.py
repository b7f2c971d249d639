"""The context manager of everything that has a `close` method."""

from typing import Self


class Closing:
    """Base of classes whose `close` ends a `with` block."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
