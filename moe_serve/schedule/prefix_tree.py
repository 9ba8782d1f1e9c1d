"""Computed pages by the tokens that led to them, so that equal prefixes are computed once.

A radix tree over blocks of page_size tokens, after RadixAttention (Zheng et al. 2023,
arXiv:2312.07104), with a root for each tenant.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from moe_serve.schedule.pages import PagePool

Block = tuple[int, ...]


@dataclass(slots=True, eq=False)
class Node:
    """One full page: the block of tokens it holds, behind all the blocks above it.

    Attributes:
        page_id: -1 at a root, which stands for the empty prefix.
    """

    parent: "Node | None" = None
    block: Block = ()
    page_id: int = -1
    children: dict[Block, "Node"] = field(default_factory=dict)


class PrefixTree:
    """Holds one reference on the page of each node; pages that only it holds are idle.

    Idle pages are evicted in the order in which they fell idle. Whoever holds a page holds all
    the pages above it and releases the deepest first, so the first in line is always a leaf, and
    no clock is needed to find the least recently used one.
    """

    def __init__(self, pool: PagePool) -> None:
        self._pool = pool
        self._roots: dict[int, Node] = {}
        self._nodes: dict[int, Node] = {}
        self._idle: OrderedDict[int, Node] = OrderedDict()

    @property
    def num_idle(self) -> int:
        return len(self._idle)

    @property
    def page_ids(self) -> frozenset[int]:
        """Every page in the tree, idle or in use."""
        return frozenset(self._nodes)

    def root(self, tenant: int) -> Node:
        return self._roots.setdefault(tenant, Node())

    def match(self, tenant: int, blocks: Iterable[Block]) -> list[Node]:
        """Nodes of the longest prefix of `blocks` that is in the tree; takes no reference."""
        node = self.root(tenant)
        nodes: list[Node] = []
        for block in blocks:
            child = node.children.get(block)
            if child is None:
                break
            nodes.append(child)
            node = child
        return nodes

    def insert(self, parent: Node, block: Block, page_id: int) -> Node:
        """The node of `block` under `parent`: a new one with this page, unless there is one."""
        node = parent.children.get(block)
        if node is None:
            node = Node(parent, block, page_id)
            parent.children[block] = node
            self._nodes[page_id] = node
            self._pool.acquire(page_id)
        return node

    def is_idle(self, node: Node) -> bool:
        return node.page_id in self._idle

    def acquire(self, node: Node) -> None:
        """Take a reference on a node's page, which keeps it from eviction."""
        self._pool.acquire(node.page_id)
        self._idle.pop(node.page_id, None)

    def release(self, page_id: int) -> None:
        """Drop a reference on a page, in the tree or not; a sequence's deepest page comes first."""
        left = self._pool.release(page_id)
        node = self._nodes.get(page_id)
        if left == 1 and node is not None:
            self._idle[page_id] = node

    def evict(self) -> bool:
        """Free the least recently used idle page; False if there is none."""
        if not self._idle:
            return False
        page_id, node = self._idle.popitem(last=False)
        assert node.parent is not None and not node.children, f"page {page_id} is no leaf"
        del node.parent.children[node.block]
        del self._nodes[page_id]
        self._pool.release(page_id)
        return True
