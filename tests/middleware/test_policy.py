"""What configured rules say about a client and a route."""

import pytest

from crossfade.policy import ClientClassifier, Routes, is_document_navigation
from crossfade.settings import ClientRule, RouteRule

RULES = (
    ClientRule(kind="machine", path="/hooks/"),
    ClientRule(kind="mobile", header="X-App", matches="Shop/"),
    ClientRule(kind="machine", path="/api/", header="x-batch"),
)


@pytest.mark.parametrize(
    ("path", "headers", "kind"),
    [
        ("/", {}, "web"),
        ("/hooks/pay", {"x-app": "Shop/3"}, "machine"),
        ("/hooks", {}, "web"),
        ("/", {"x-app": "Shop/3.1"}, "mobile"),
        ("/", {"x-app": "shop/3.1"}, "mobile"),
        ("/", {"x-app": "mobile"}, "web"),
        ("/api/x", {"x-batch": ""}, "machine"),
        ("/x", {"x-batch": "1"}, "web"),
    ],
)
def test_the_first_rule_that_holds_decides(path: str, headers: dict[str, str], kind: str) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert ClientClassifier(RULES).kind(path, raw) == kind


def test_the_longest_prefix_decides_about_a_route() -> None:
    routes = Routes(
        (
            RouteRule(path="/api", login_required=True),
            RouteRule(path="/api/public"),
            RouteRule(path="/api/stream", login_required=True, no_renew=True),
        )
    )
    asked = ("/", "/api/x", "/api/public/x", "/api/stream")
    assert [routes.login_required(path) for path in asked] == [False, True, False, True]
    assert [routes.no_renew(path) for path in asked] == [False, False, False, True]


@pytest.mark.parametrize(
    ("method", "mode", "dest", "site", "expected"),
    [
        ("GET", "navigate", "document", "same-origin", True),
        ("GET", "navigate", "document", "none", True),
        ("GET", "navigate", "document", "same-site", False),
        ("GET", "navigate", "document", "cross-site", False),
        ("GET", "navigate", "iframe", "same-origin", False),
        ("GET", "cors", "empty", "same-origin", False),
        ("POST", "navigate", "document", "same-origin", False),
        ("HEAD", "navigate", "document", "none", False),
    ],
)
def test_only_a_page_that_a_person_went_to_is_a_navigation(
    method: str, mode: str, dest: str, site: str, expected: bool
) -> None:
    values = {"mode": mode, "dest": dest, "site": site}
    headers = [(f"sec-fetch-{name}".encode(), value.encode()) for name, value in values.items()]
    assert is_document_navigation(method, headers) is expected
    assert not is_document_navigation(method, [])
