import math
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.legacy.base import SessionState
from crossfade.legacy.identity import IdentityMap
from crossfade.principal import Identity
from crossfade.settings import IdentitySettings

NOW = 1_800_000_000.0
RICH = IdentitySettings(
    user="user.id",
    tenant="user.tenant",
    actor="admin",
    auth_time="at",
    partial=("pending", "mfa.wanted"),
)

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
identities = st.builds(Identity, subject=names.filter(bool), tenant=names, actor=names)
json_objects = st.dictionaries(
    st.sampled_from(["user", "admin", "at", "pending", "mfa", "cart"]),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["id", "tenant", "wanted"]), inner, max_size=3)
        ),
        max_leaves=8,
    ),
)


def subject(data: dict[str, Any], **columns: object) -> str | None:
    identity = IdentityMap(IdentitySettings(user="user.id")).of(data, NOW, columns).identity
    return identity and identity.subject


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("u1", "u1"),
        (7, "7"),
        (0, "0"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ("", None),
        (None, None),
        (True, None),
        (False, None),
        (1.0, None),
        (math.nan, None),
        (["u1"], None),
        ({"id": "u1"}, None),
        (b"u1", None),
        ("\ud800", None),
        ("u\0", None),
        ("u" * 256, None),
        (10**5000, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_an_id_is_a_subject(value: object, expected: str | None) -> None:
    assert subject({"user": {"id": value}}) == expected


@pytest.mark.parametrize(
    "data", [{}, {"user": None}, {"user": "u1"}, {"user": ["id"]}, {"id": "u1"}]
)
def test_a_path_that_leads_nowhere_finds_nobody(data: dict[str, Any]) -> None:
    assert subject(data) is None


def test_a_column_takes_the_place_of_the_path_even_when_it_is_null() -> None:
    data = {"user": {"id": "u1"}}
    assert subject(data, user=7) == "7"
    assert subject(data, user=None) is None


def test_all_parts_are_found() -> None:
    found = IdentityMap(RICH).of(
        {"user": {"id": 7, "tenant": "acme"}, "admin": "root", "at": NOW - 60}, NOW
    )
    assert found.state is SessionState.OK
    assert found.identity == Identity(subject="7", tenant="acme", actor="root")
    assert found.auth_time == NOW - 60


@pytest.mark.parametrize("part", [{"tenant": True}, {"tenant": 1.5}, {"tenant": ["acme"]}])
def test_an_unreadable_tenant_is_nobody_rather_than_somebody_without_tenant(
    part: dict[str, Any],
) -> None:
    found = IdentityMap(RICH).of({"user": {"id": "u1"} | part}, NOW)
    assert (found.state, found.identity) == (SessionState.ANONYMOUS, None)


def test_an_unreadable_actor_is_nobody_rather_than_the_user_himself() -> None:
    found = IdentityMap(RICH).of({"user": {"id": "u1"}, "admin": {"id": "root"}}, NOW)
    assert (found.state, found.identity) == (SessionState.ANONYMOUS, None)


@pytest.mark.parametrize(
    ("data", "state"),
    [
        ({"pending": "u1"}, SessionState.PARTIAL),
        ({"pending": True, "user": {"id": "u1"}}, SessionState.PARTIAL),
        ({"mfa": {"wanted": 1}, "user": {"id": "u1"}}, SessionState.PARTIAL),
        ({"pending": None, "user": {"id": "u1"}}, SessionState.OK),
        ({"pending": False, "mfa": {"wanted": ""}, "user": {"id": "u1"}}, SessionState.OK),
    ],
)
def test_a_log_in_is_partial_while_a_pending_mark_is_set(
    data: dict[str, Any], state: SessionState
) -> None:
    found = IdentityMap(RICH).of(data, NOW)
    assert found.state is state
    assert found.identity == (Identity(subject="u1") if "user" in data else None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (NOW - 5, NOW - 5),
        (int(NOW), NOW),
        ("2027-01-15T08:00:00Z", NOW),
        ("2027-01-15 08:00:00", NOW),
        ("2027-01-15T09:00:00+01:00", NOW),
        (NOW * 1000, None),
        ("yesterday", None),
        (True, None),
        (-1, None),
        (math.inf, None),
        (None, None),
    ],
)
def test_a_log_in_time_that_cannot_be_is_no_log_in_time(
    value: object, expected: float | None
) -> None:
    found = IdentityMap(RICH).of({"user": {"id": "u1"}, "at": value}, NOW)
    assert found.auth_time == expected


@given(json_objects)
def test_no_data_makes_the_map_raise(data: dict[str, Any]) -> None:
    found = IdentityMap(RICH).of(data, NOW)
    assert (found.identity is None) or found.state in {SessionState.OK, SessionState.PARTIAL}


@given(json_objects, identities)
def test_what_is_put_is_found_again(data: dict[str, Any], identity: Identity) -> None:
    before = repr(data)
    put = IdentityMap(RICH).put(data, identity, NOW)
    assert IdentityMap(RICH).of(put, NOW) == (SessionState.OK, identity, NOW)
    assert put.get("cart") == data.get("cart")
    assert repr(data) == before


@given(json_objects)
def test_nobody_put_is_anonymous(data: dict[str, Any]) -> None:
    put = IdentityMap(RICH).put(data, None)
    assert IdentityMap(RICH).of(put, NOW) == (SessionState.ANONYMOUS, None, None)


def test_an_application_that_counts_its_users_gets_a_number_back() -> None:
    numbers = IdentityMap(IdentitySettings(user_form="integer"))
    assert numbers.put({}, Identity(subject="7")) == {"user_id": 7}
    assert numbers.put({}, Identity(subject="auth0|7")) == {"user_id": "auth0|7"}
    assert IdentityMap(IdentitySettings()).put({}, Identity(subject="7")) == {"user_id": "7"}


def test_a_part_with_a_column_of_its_own_stays_out_of_the_data() -> None:
    put = IdentityMap(RICH).put({}, Identity(subject="u1", tenant="acme"), columns={"user"})
    assert put == {"user": {"tenant": "acme"}}
