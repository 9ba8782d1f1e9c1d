"""The pages of one rank's cache: who holds how many references, and which are free."""


class PagePool:
    """Hands out page ids 0 .. num_pages - 1 and takes each back with its last reference.

    A sequence holds one reference on each of its pages, the prefix tree one on each of its own.

    Args:
        num_held: how many take memory; the others are absent until they are added.
    """

    def __init__(self, num_pages: int, num_held: int | None = None) -> None:
        self.num_pages = num_pages
        self._references = [0] * num_pages
        self._free: list[int] = []
        self._absent = list(range(num_pages - 1, -1, -1))
        self.add(num_pages if num_held is None else num_held)

    @property
    def num_free(self) -> int:
        """Pages that are held and hold nothing."""
        return len(self._free)

    @property
    def num_held(self) -> int:
        return self.num_pages - len(self._absent)

    def add(self, num_pages: int) -> None:
        """Make absent pages free ones."""
        first = len(self._absent) - num_pages
        assert first >= 0, f"{num_pages} pages asked, {len(self._absent)} are absent"
        self._free += self._absent[first:]
        del self._absent[first:]

    def remove(self, num_pages: int) -> list[int]:
        """Make free pages absent ones -> their ids."""
        first = len(self._free) - num_pages
        assert first >= 0, f"{num_pages} pages asked, {len(self._free)} are free"
        removed = self._free[first:]
        del self._free[first:]
        self._absent += removed
        return removed

    def references(self, page_id: int) -> int:
        return self._references[page_id]

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
