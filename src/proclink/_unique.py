"""What there is once, in one process."""

from __future__ import annotations

from typing import ClassVar, NoReturn, SupportsIndex


class Unique:
    """Refuses to be copied, pickled, or handed to another process."""

    __slots__ = ()

    _instead: ClassVar[str]

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuses: a copy would be a second owner of the same memory and descriptors.

        Raises:
            TypeError: Always; it says what to do instead.
        """
        raise TypeError(
            f"a {type(self).__name__} cannot be copied, pickled or passed to another process; "
            + self._instead
        )
