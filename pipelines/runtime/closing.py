"""The context manager of everything that has a `close` method."""

from types import TracebackType
from typing import Self


class Closing:
    """Base of classes whose `close` ends a `with` block."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
