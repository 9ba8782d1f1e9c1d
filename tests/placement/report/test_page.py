"""The page of a solution: complete, escaped, and with nothing from the network."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from moe_placement.plan import Plan
from moe_placement.report.expert_load import load_spread
from moe_placement.report.page import ReportContext, solution_page, table_html
from moe_placement.report.table import Table
from moe_placement.serving.workload import Objective
from moe_placement.solver.solution import Solution

_LOADING = ("src", "href", "xlink:href", "action", "data", "poster", "srcset")


class Page(HTMLParser):
    """The text of a page, and all that a browser would load for it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in _LOADING]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def html(solution: Solution, plan: Plan) -> str:
    shares_LE = np.full((len(plan.layers), 8), 1 / 8)
    context = ReportContext(
        title="Mixtral on <two> & more",
        command="moe_plan solve --model 'a<b'",
        workload="3 requests a second",
        objective=Objective(tpot=0.04),
        spread=load_spread(plan, shares_LE),
    )
    return solution_page(solution, context)


def test_nothing_is_loaded_from_elsewhere(html: str) -> None:
    page = Page(html)
    assert page.loaded, "the heat map's picture at least is loaded"
    assert all(value.startswith(("data:image/", "#")) for value in page.loaded)
    outside = re.findall(r"url\(\s*['\"]?(?!#|data:)[^)]*", html)
    assert outside == []
    assert "@import" not in html
    assert not {"script", "link", "iframe", "object"} & set(page.tags)


def test_what_users_wrote_is_text_and_no_markup(html: str) -> None:
    assert "<script" not in html
    text = Page(html).text
    assert "<script>alert('x')</script> & co" in text
    assert "Mixtral on <two> & more" in text
    assert "moe_plan solve --model 'a<b'" in text


def test_the_page_says_all_of_the_solution(html: str) -> None:
    text = Page(html).text
    for part in (
        "expert bytes of ascend",
        "gap 5.0%",
        "apart is 12 % slower",
        "TPOT is 50 ms, 40 ms were asked for",
        "TPOT asked for",
        "equal split: fullest 1.00 x mean",
        "this plan: fullest 1.06 x mean",
        "hopper",
        "int8",
    ):
        assert part in text, part


def test_every_opened_element_is_closed(html: str) -> None:
    for tag in ("table", "section", "figure", "dl", "svg", "tr", "html", "body", "style"):
        assert len(re.findall(rf"<{tag}[\s>]", html)) == html.count(f"</{tag}>"), tag


def test_the_same_solution_gives_the_same_page(solution: Solution) -> None:
    context = ReportContext(title="a", command="b", workload="c", objective=Objective())
    assert solution_page(solution, context) == solution_page(solution, context)


def test_figures_stand_right_and_names_left() -> None:
    table = Table("t", ("name", "size"), (("a", "1"),), note="n < m")
    html = table_html(table)
    assert '<td>a</td><td class="figure">1</td>' in html
    assert "n &lt; m" in html
