"""The pages of one rank's cache: who holds how many references, and which are free."""


class PagePool:
    """Hands out page ids 0 .. num_pages - 1 and takes each back with its last reference.

    A sequence holds one reference on each of its pages, the prefix tree one on each of its own.

    Args:
        num_pages: may be many more than are ever held: those cost nothing.
        num_held: how many take memory; the others are absent until they are added.
    """

    def __init__(self, num_pages: int, num_held: int | None = None) -> None:
        self.num_pages = num_pages
        # Of the pages that have ever been held, which are the first ones.
        self._references: list[int] = []
        self._free: list[int] = []
        self._absent: list[int] = []
        self.add(num_pages if num_held is None else num_held)

    @property
    def num_free(self) -> int:
        """Pages that are held and hold nothing."""
        return len(self._free)

    @property
    def num_held(self) -> int:
        return len(self._references) - len(self._absent)

    def add(self, num_pages: int) -> None:
        """Make absent pages free ones."""
        num_absent = self.num_pages - self.num_held
        assert num_pages <= num_absent, f"{num_pages} pages asked, {num_absent} are absent"
        known = len(self._references)
        num_new = max(0, num_pages - len(self._absent))
        self._references += [0] * num_new
        self._free += range(known + num_new - 1, known - 1, -1)
        again = len(self._absent) - (num_pages - num_new)
        self._free += self._absent[again:]
        del self._absent[again:]

    def remove(self, num_pages: int) -> list[int]:
        """Make free pages absent ones -> their ids."""
        first = len(self._free) - num_pages
        assert first >= 0, f"{num_pages} pages asked, {len(self._free)} are free"
        removed = self._free[first:]
        del self._free[first:]
        self._absent += removed
        return removed

    def references(self, page_id: int) -> int:
        return self._references[page_id] if page_id < len(self._references) else 0

    def allocate(self) -> int:
        """Take a free page, of which there must be one, with a first reference."""
        page_id = self._free.pop()
        self._references[page_id] = 1
        return page_id

    def acquire(self, page_id: int) -> None:
        """Add a reference to a page that somebody holds."""
        assert self._references[page_id] > 0, f"page {page_id} is free"
        self._references[page_id] += 1

    def release(self, page_id: int) -> int:
        """Drop a reference and return how many are left; a page without any is free."""
        left = self._references[page_id] - 1
        assert left >= 0, f"page {page_id} is released twice"
        self._references[page_id] = left
        if left == 0:
            self._free.append(page_id)
        return left
