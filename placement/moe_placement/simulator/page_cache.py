"""The stand-in's pages: free, in use by sequences, or idle and kept for their prefix."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

PageKey = tuple[int, ...]


class PageCache:
    """Counts pages; only computed full ones have a key, which stands for the tokens up to its end.

    Idle pages are evicted in the order in which they fell idle. Sequences release their deepest
    page first, so what is evicted first is never needed by a page that stays.
    """

    def __init__(self, num_pages: int) -> None:
        self.num_pages = num_pages
        self._num_free = num_pages
        self._users: dict[PageKey, int] = {}
        self._idle: OrderedDict[PageKey, None] = OrderedDict()

    @property
    def num_available(self) -> int:
        """Pages to be had without taking any from a sequence."""
        return self._num_free + len(self._idle)

    @property
    def num_used(self) -> int:
        return self.num_pages - self.num_available

    def match(self, keys: Iterable[PageKey]) -> int:
        """How many leading pages are there."""
        num_matched = 0
        for key in keys:
            if key not in self._users and key not in self._idle:
                break
            num_matched += 1
        return num_matched

    def num_in_use(self, keys: Iterable[PageKey]) -> int:
        return sum(key in self._users for key in keys)

    def share(self, keys: Iterable[PageKey]) -> None:
        """Use pages that are there."""
        for key in keys:
            self._users[key] = self._users.get(key, 0) + 1
            self._idle.pop(key, None)

    def allocate(self, num_pages: int) -> None:
        """Take pages without a key, of which there must be as many available."""
        assert num_pages <= self.num_available, "admitted or grown beyond the available pages"
        while self._num_free < num_pages:
            self._idle.popitem(last=False)
            self._num_free += 1
        self._num_free -= num_pages

    def free(self, num_pages: int) -> None:
        """Give back pages without a key."""
        self._num_free += num_pages

    def commit(self, key: PageKey) -> None:
        """Name a page in use; where another has computed the same, the copy is given back."""
        num_users = self._users.get(key, 0)
        if num_users or key in self._idle:
            self._idle.pop(key, None)
            self._num_free += 1
        self._users[key] = num_users + 1

    def release(self, keys: Sequence[PageKey]) -> None:
        """Use pages no longer; those that nobody uses stay until they are evicted."""
        for key in reversed(keys):
            num_users = self._users.pop(key) - 1
            if num_users:
                self._users[key] = num_users
            else:
                self._idle[key] = None
