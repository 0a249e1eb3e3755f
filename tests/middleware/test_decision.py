"""Every row of the decision table, and what must hold for any input."""

from itertools import product
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.decision import (
    ROWS,
    TABLE,
    Decision,
    Effect,
    Evidence,
    SessionEvidence,
    TokenEvidence,
    TokenState,
    Verdict,
    decide,
)
from crossfade.errors import Reason
from crossfade.legacy.base import SessionState
from crossfade.principal import Identity
from crossfade.rollout.state import Mode

U, V = Identity(subject="u"), Identity(subject="v")
REASONS = {
    "bad": Reason.BAD_SIGNATURE,
    "expired": Reason.EXPIRED,
    "revoked": Reason.REVOKED,
    "unknown": Reason.KEYS_UNAVAILABLE,
    "foreign": Reason.FOREIGN,
}
DIALS = (
    (Mode.OFF, "session"),
    (Mode.BOTH, "session"),
    (Mode.BOTH, "token"),
    (Mode.ENFORCE, "token"),
)
SESSIONS = (
    "absent",
    "ok u",
    "ok v",
    "anonymous",
    "partial u",
    "partial v",
    "gone",
    "tampered",
    "unknown",
)


def token(text: str) -> TokenEvidence:
    """Read `ok u`, `expired u`, `just expired u`, `bad` and so on."""
    state, _, who = text.removeprefix("just ").partition(" ")
    return TokenEvidence(
        state=TokenState(state),
        identity={"u": U, "v": V}.get(who),
        reason=REASONS.get(state),
        is_forgivable=text.startswith("just "),
    )


def session(text: str) -> SessionEvidence:
    """Read `ok u`, `anonymous`, and `ended gone` for the token's own anchor that ended."""
    state, _, who = text.removeprefix("ended ").partition(" ")
    return SessionEvidence(
        state=SessionState(state),
        identity={"u": U, "v": V}.get(who),
        ended_login=text.startswith("ended "),
    )


def decided(header: str, cookie: str, of: str, mode: Mode, leader: str, **more: bool) -> Decision:
    """Decide one request told in words."""
    rejects = more.pop("rejects", False)
    evidence = Evidence(header=token(header), cookie=token(cookie), session=session(of), **more)
    return decide(evidence, mode, leader, reject_conflicts=rejects)  # type: ignore[arg-type]


class Case(NamedTuple):
    """One row: what came in; who the request is: sessions leading, tokens leading, enforced."""

    row: str
    header: str
    cookie: str
    session: str
    expected: str


NONE = "absent"
CASES = (
    Case("1", NONE, NONE, "ok u", "session session anonymous"),
    Case("2", NONE, NONE, "absent", "anonymous anonymous anonymous"),
    Case("2", NONE, NONE, "gone", "anonymous anonymous anonymous"),
    Case("3", NONE, NONE, "anonymous", "anonymous anonymous anonymous"),
    Case("4", NONE, NONE, "partial u", "legacy legacy legacy"),
    Case("5", NONE, NONE, "tampered", "anonymous anonymous anonymous"),
    Case("6", NONE, NONE, "unknown", "anonymous anonymous anonymous"),
    *(
        Case("7", *carried, of, "token token token")
        for carried in (("ok u", NONE), (NONE, "ok u"))
        for of in ("absent", "gone", "anonymous")
    ),
    Case("7", "ok u", NONE, "ended gone", "401 401 401"),
    Case("7", "ok u", NONE, "ended anonymous", "401 401 401"),
    Case("7", NONE, "ok u", "ended gone", "anonymous anonymous anonymous"),
    Case("7", NONE, "ok u", "ended anonymous", "anonymous anonymous anonymous"),
    Case("8", "ok u", NONE, "ok u", "session token token"),
    Case("8", NONE, "ok u", "ok u", "session token token"),
    *(
        Case("9", *carried, of, "token token token")
        for carried in (("ok u", NONE), (NONE, "ok u"))
        for of in ("tampered", "unknown")
    ),
    Case("10", "ok u", NONE, "partial u", "token token token"),
    Case("10", NONE, "ok u", "partial u", "token token token"),
    Case("11", "ok u", NONE, "ok v", "token token token"),
    Case("12", NONE, "ok u", "ok v", "token token token"),
    Case("12", NONE, "ok u", "partial v", "token token token"),
    *(Case("13", "ok u", "ok v", of, "400 400 400") for of in SESSIONS),
    *(
        Case("14", "ok u", cookie, "absent", "token token token")
        for cookie in ("bad", "expired v", "revoked v")
    ),
    Case("15", "just expired u", NONE, "ok u", "session session 401"),
    *(
        Case("16", header, NONE, of, "401 401 401")
        for header in ("expired u", "just expired u")
        for of in SESSIONS
        if (header, of) != ("just expired u", "ok u")
    ),
    Case("17", NONE, "expired u", "ok u", "session session anonymous"),
    Case("17", NONE, "expired u", "ok v", "session session anonymous"),
    Case("17", NONE, "expired u", "absent", "anonymous anonymous anonymous"),
    Case("17", NONE, "expired u", "partial u", "legacy legacy legacy"),
    *(Case("18", "bad", NONE, of, "401 401 401") for of in SESSIONS),
    *(Case("18", "bad", "ok u", of, "401 401 401") for of in SESSIONS),
    Case("19", NONE, "bad", "ok u", "session session anonymous"),
    Case("19", NONE, "bad", "absent", "anonymous anonymous anonymous"),
    Case("19", NONE, "bad", "tampered", "anonymous anonymous anonymous"),
    *(Case("20", "revoked u", NONE, of, "401 401 401") for of in SESSIONS),
    Case("20", NONE, "revoked u", "absent", "anonymous anonymous anonymous"),
    Case("20", NONE, "revoked u", "gone", "anonymous anonymous anonymous"),
    Case("20", NONE, "revoked u", "ok u", "session session anonymous"),
    Case("21", "foreign", NONE, "absent", "anonymous anonymous anonymous"),
    Case("21", "foreign", NONE, "ok u", "session session anonymous"),
    Case("21", "foreign", "ok u", "absent", "token token token"),
    Case("21", "foreign", "ok u", "ok u", "session token token"),
    *(
        Case("22", *carried, "ok u", "session session 503")
        for carried in (("unknown", NONE), (NONE, "unknown"))
    ),
    *(
        Case("23", *carried, of, "503 503 503")
        for carried in (("unknown", NONE), (NONE, "unknown"))
        for of in SESSIONS
        if not of.startswith("ok")
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case[:4]).replace(" ", "_"))
def test_each_row_says_who_the_request_is_in_each_mode(case: Case) -> None:
    dials = DIALS[1:]
    found = [decided(case.header, case.cookie, case.session, *dial) for dial in dials]
    assert " ".join(one.verdict for one in found) == case.expected
    assert {one.row for one in found} == {case.row}


@pytest.mark.parametrize("of", SESSIONS)
def test_with_tokens_off_the_session_alone_decides(of: str) -> None:
    found = {
        decided(header, cookie, of, Mode.OFF, "session")
        for header in ("absent", "ok v", "bad", "revoked u", "unknown")
        for cookie in ("absent", "ok v", "bad", "unknown")
    }
    expected = {"ok u": "session", "ok v": "session", "partial u": "legacy", "partial v": "legacy"}
    assert {one.verdict for one in found} == {expected.get(of, "anonymous")}
    assert {one.effects for one in found} == {frozenset()}


def test_an_unreadable_session_is_503_only_where_a_log_in_is_required() -> None:
    for mode, leader in DIALS[1:]:
        strict = decided("absent", "absent", "unknown", mode, leader, login_required=True)
        assert strict.verdict is (
            Verdict.ANONYMOUS if mode is Mode.ENFORCE else Verdict.UNAVAILABLE
        )
        assert strict.reason is Reason.SESSION_UNKNOWN


def test_no_row_clears_a_legacy_cookie_but_that_of_another_user() -> None:
    clearing = [row.number for row in TABLE if Effect.CLEAR_SESSION in row.effects]
    assert clearing == ["12"]


def test_only_a_lone_live_session_is_a_candidate_for_tokens() -> None:
    for header, cookie, of in product(
        ("absent", "foreign", "ok u"), ("absent", "bad", "ok u"), SESSIONS
    ):
        found = decided(header, cookie, of, Mode.BOTH, "session")
        is_alone = (header, cookie) == ("absent", "absent") and of.startswith("ok")
        assert (Effect.UPGRADE in found.effects) == is_alone


def test_in_enforce_a_live_session_is_withheld_counted_and_kept() -> None:
    found = decided("absent", "absent", "ok u", Mode.ENFORCE, "token")
    assert found.effects == {Effect.WITHHOLD}
    assert found.reason is Reason.LEGACY_REFUSED


@pytest.mark.parametrize("dial", DIALS[1:], ids=str)
def test_a_planted_session_never_changes_who_a_cookie_token_is(dial: tuple[Mode, str]) -> None:
    reading = decided("absent", "ok u", "ok v", *dial)
    writing = decided("absent", "ok u", "ok v", *dial, is_unsafe=True)
    assert reading.verdict is Verdict.TOKEN
    assert {Effect.WITHHOLD, Effect.CLEAR_SESSION} <= reading.effects
    assert writing.verdict is Verdict.CONFLICT
    assert writing.reason is Reason.IDENTITY_CONFLICT


@pytest.mark.parametrize("dial", DIALS[1:], ids=str)
def test_a_bearer_beside_another_users_session_wins_or_is_refused_by_policy(
    dial: tuple[Mode, str],
) -> None:
    by_default = decided("ok u", "absent", "ok v", *dial)
    strict = decided("ok u", "absent", "ok v", *dial, rejects=True)
    assert (by_default.verdict, by_default.carrier) == (Verdict.TOKEN, "header")
    assert Effect.WITHHOLD in by_default.effects
    assert (strict.verdict, strict.reason) == (Verdict.BAD_REQUEST, Reason.IDENTITY_CONFLICT)


@pytest.mark.parametrize("cookie", ["bad", "revoked u", "revoked v"])
def test_a_bad_ambient_cookie_is_cleared_and_otherwise_as_none(cookie: str) -> None:
    for dial, of in product(DIALS[1:], SESSIONS):
        found, without = (
            decided("absent", cookie, of, *dial),
            decided("absent", "absent", of, *dial),
        )
        assert found.verdict is without.verdict
        assert Effect.CLEAR_ACCESS in found.effects
        assert Effect.UPGRADE not in found.effects


def test_a_good_bearer_clears_a_bad_cookie_in_every_row() -> None:
    for dial, of in product(DIALS[1:], ("absent", "ok u", "ok v", "unknown")):
        assert Effect.CLEAR_ACCESS in decided("ok u", "bad", of, *dial).effects


def test_an_expired_bearer_that_leans_on_its_session_is_told_to_refresh() -> None:
    found = decided("just expired u", "absent", "ok u", Mode.BOTH, "token")
    assert found.effects == {Effect.HINT_REFRESH}
    assert found.carrier is None


def test_two_credentials_of_ours_are_400_whatever_they_are() -> None:
    for dial in DIALS[1:]:
        found = decided("absent", "ok u", "ok u", *dial, several=True)
        assert (found.verdict, found.reason) == (Verdict.BAD_REQUEST, Reason.SEVERAL_CREDENTIALS)


def test_identities_differ_by_tenant_and_actor_too() -> None:
    for other in (Identity(subject="u", tenant="t"), Identity(subject="u", actor="root")):
        evidence = Evidence(
            header=token("absent"),
            cookie=token("ok u"),
            session=SessionEvidence(state=SessionState.OK, identity=other),
        )
        assert decide(evidence, Mode.BOTH, "session").row == "12"


def test_every_number_of_the_table_is_one_row_of_the_design() -> None:
    chosen_in_code = {"13", "14", "17", "19", "21"}
    assert {row.number for row in TABLE} | chosen_in_code == {str(n) for n in range(1, 24)}
    assert all(row.why for row in TABLE)
    assert len(ROWS) == sum(len(row.token) * len(row.session) for row in TABLE)


IDENTITIES = st.sampled_from([U, V, Identity(subject="u", tenant="t")])


@st.composite
def tokens(draw: st.DrawFn, carrier: str) -> TokenEvidence:
    """Any evidence that verifying can produce; our own cookie is never foreign."""
    states = [state for state in TokenState if carrier == "header" or state != "foreign"]
    state = draw(st.sampled_from(states))
    named = state in {TokenState.OK, TokenState.EXPIRED, TokenState.REVOKED}
    return TokenEvidence(
        state=state,
        identity=draw(IDENTITIES) if named else None,
        reason=REASONS.get(state),
        is_forgivable=state is TokenState.EXPIRED and draw(st.booleans()),
    )


@st.composite
def evidences(draw: st.DrawFn) -> Evidence:
    """Any evidence at all."""
    state = draw(st.sampled_from(SessionState))
    named = state in {SessionState.OK, SessionState.PARTIAL}
    ended = state in {SessionState.GONE, SessionState.ANONYMOUS} and draw(st.booleans())
    return Evidence(
        header=draw(tokens("header")),
        cookie=draw(tokens("cookie")),
        session=SessionEvidence(
            state=state, identity=draw(IDENTITIES) if named else None, ended_login=ended
        ),
        several=draw(st.booleans()),
        is_unsafe=draw(st.booleans()),
        login_required=draw(st.booleans()),
    )


ANY_DIAL = st.sampled_from(DIALS)


@given(evidence=evidences(), dial=ANY_DIAL, rejects=st.booleans())
def test_every_evidence_is_decided(
    evidence: Evidence, dial: tuple[Mode, str], rejects: bool
) -> None:
    found = decide(evidence, *dial, reject_conflicts=rejects)  # type: ignore[arg-type]
    assert found.row
    assert (found.carrier is None) == (found.verdict is not Verdict.TOKEN)


@given(evidence=evidences(), dial=ANY_DIAL)
def test_who_wins_is_what_its_own_credential_proved(
    evidence: Evidence, dial: tuple[Mode, str]
) -> None:
    found = decide(evidence, *dial)  # type: ignore[arg-type]
    if found.verdict is Verdict.TOKEN:
        winner = evidence.header if found.carrier == "header" else evidence.cookie
        assert winner.state is TokenState.OK
    if found.verdict is Verdict.SESSION:
        assert evidence.session.state is SessionState.OK
        live = [t for t in (evidence.header, evidence.cookie) if t.state is TokenState.OK]
        if dial[0] is not Mode.OFF:
            assert all(t.identity == evidence.session.identity for t in live)


@given(evidence=evidences(), dial=ANY_DIAL)
def test_a_fault_of_ours_is_never_a_log_out(evidence: Evidence, dial: tuple[Mode, str]) -> None:
    found = decide(evidence, *dial)  # type: ignore[arg-type]
    faulty = {evidence.header.state, evidence.cookie.state} & {TokenState.UNKNOWN}
    others = {evidence.header.state, evidence.cookie.state} - {
        TokenState.UNKNOWN,
        TokenState.ABSENT,
    }
    if faulty and not others and dial[0] is not Mode.OFF and not evidence.several:
        assert found.verdict in {Verdict.UNAVAILABLE, Verdict.SESSION}
        assert not found.effects & {Effect.CLEAR_ACCESS, Effect.CLEAR_SESSION, Effect.END_LOGIN}


@given(evidence=evidences(), dial=ANY_DIAL)
def test_a_bad_header_never_falls_back(evidence: Evidence, dial: tuple[Mode, str]) -> None:
    found = decide(evidence, *dial)  # type: ignore[arg-type]
    bad = evidence.header.state in {TokenState.BAD, TokenState.REVOKED}
    if bad and dial[0] is not Mode.OFF and not evidence.several:
        assert found.verdict is Verdict.UNAUTHORIZED


@given(evidence=evidences(), dial=ANY_DIAL)
def test_an_expired_header_never_slides_into_another_identity(
    evidence: Evidence, dial: tuple[Mode, str]
) -> None:
    found = decide(evidence, *dial)  # type: ignore[arg-type]
    if evidence.header.state is not TokenState.EXPIRED or dial[0] is Mode.OFF or evidence.several:
        return
    assert found.verdict in {Verdict.SESSION, Verdict.UNAUTHORIZED}
    if found.verdict is Verdict.SESSION:
        assert evidence.session.identity == evidence.header.identity
        assert evidence.header.is_forgivable


@given(evidence=evidences())
def test_with_tokens_enforced_no_session_authenticates(evidence: Evidence) -> None:
    assert decide(evidence, Mode.ENFORCE, "token").verdict is not Verdict.SESSION


@given(evidence=evidences(), dial=ANY_DIAL)
def test_without_credentials_the_log_in_form_is_always_reached(
    evidence: Evidence, dial: tuple[Mode, str]
) -> None:
    nobody = TokenEvidence(state=TokenState.ABSENT)
    bare = Evidence(header=nobody, cookie=nobody, session=evidence.session)
    found = decide(bare, *dial)  # type: ignore[arg-type]
    assert found.verdict in {Verdict.ANONYMOUS, Verdict.LEGACY, Verdict.SESSION}
    if bare.session.state is SessionState.PARTIAL:
        assert found.verdict is Verdict.LEGACY
        assert Effect.WITHHOLD not in found.effects


@given(evidence=evidences(), dial=ANY_DIAL)
def test_nothing_but_a_lone_session_leads_to_new_tokens(
    evidence: Evidence, dial: tuple[Mode, str]
) -> None:
    found = decide(evidence, *dial)  # type: ignore[arg-type]
    if Effect.UPGRADE in found.effects:
        assert found.verdict is Verdict.SESSION
        assert evidence.header.state is TokenState.ABSENT
        assert evidence.cookie.state in {TokenState.ABSENT, TokenState.EXPIRED}
