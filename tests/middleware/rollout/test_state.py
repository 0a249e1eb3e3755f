import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.errors import ConfigurationError
from crossfade.rollout.bucketing import BUCKETS
from crossfade.rollout.state import CLIENTS, Mode, Phase, RolloutState, RunStatus

DUAL = RolloutState(
    phase=Phase.DUAL,
    stage="dual-10",
    accept_token=True,
    issue_token={"web": 10_000, "mobile": 0, "machine": 0},
    status=RunStatus.BAKING,
    entered_at=1_800_000_000.5,
    stage_revision=3,
    plan={"name": "trial", "stage": [{"name": "dual-10"}]},
    salt="trial-1",
)

times = st.floats(0, 4e9, allow_nan=False)
shares = st.fixed_dictionaries({client: st.integers(0, BUCKETS) for client in CLIENTS})


@st.composite
def states(draw):
    accept_session = draw(st.booleans())
    accept_token = draw(st.booleans()) or not accept_session
    return RolloutState(
        phase=draw(st.sampled_from(Phase)),
        stage=draw(st.none() | st.text()),
        accept_session=accept_session,
        accept_token=accept_token,
        issue_session=accept_session and draw(st.booleans()),
        issue_token=draw(shares) if accept_token else dict.fromkeys(CLIENTS, 0),
        status=draw(st.sampled_from(RunStatus)),
        entered_at=draw(times),
        stage_revision=draw(st.integers(0, 99)),
        paused_at=draw(st.none() | times),
        paused_for=draw(times),
        plan=draw(st.none() | st.dictionaries(st.text(), st.integers())),
        salt=draw(st.text()),
        pending=draw(st.none() | st.just({"verb": "advance", "stage": "x"})),
        narrow_at=draw(st.none() | times),
        frozen=draw(st.booleans()),
        note=draw(st.text()),
    )


@given(states())
def test_a_document_comes_back_from_json_as_it_was(state: RolloutState) -> None:
    assert RolloutState.from_json(state.to_json()) == state


@given(states())
def test_the_written_form_is_canonical(state: RolloutState) -> None:
    text = state.to_json()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


def test_a_fleet_begins_with_sessions_only() -> None:
    state = RolloutState.initial()
    assert (state.mode, state.leader, state.phase) == (Mode.OFF, "session", Phase.SESSIONS)
    assert state.issues_session
    assert not any(state.selects(client, "u1") for client in CLIENTS)


@pytest.mark.parametrize(
    ("session", "token", "mode"),
    [(True, False, Mode.OFF), (True, True, Mode.BOTH), (False, True, Mode.ENFORCE)],
)
def test_the_mode_follows_from_what_is_accepted(session: bool, token: bool, mode: Mode) -> None:
    state = RolloutState(accept_session=session, accept_token=token, issue_session=False)
    assert state.mode is mode


@pytest.mark.parametrize(
    ("phase", "leader"),
    [
        ("sessions", "session"),
        ("dual", "session"),
        ("prefer", "token"),
        ("drain", "token"),
        ("tokens", "token"),
    ],
)
def test_the_leader_follows_from_the_phase(phase: str, leader: str) -> None:
    assert replace(DUAL, phase=Phase(phase)).leader == leader


def test_a_subject_is_selected_by_its_own_kind_of_client() -> None:
    everybody = replace(DUAL, issue_token={"web": BUCKETS, "mobile": 0, "machine": 0})
    assert everybody.selects("web", "u1")
    assert not everybody.selects("mobile", "u1")
    assert not everybody.selects("toaster", "u1")


def test_a_missing_subject_is_never_selected() -> None:
    everybody = replace(DUAL, issue_token=dict.fromkeys(CLIENTS, BUCKETS))
    assert not everybody.selects("web", "")


@given(states(), st.text(min_size=1))
def test_whoever_is_issued_tokens_has_them_accepted(state: RolloutState, subject: str) -> None:
    assert state.accept_token or not any(state.selects(c, subject) for c in CLIENTS)


@pytest.mark.parametrize(
    "change",
    [
        {"accept_token": False},
        {"accept_session": False},
        {"issue_token": {"web": 1}},
        {"issue_token": {"web": BUCKETS + 1, "mobile": 0, "machine": 0}},
        {"accept_session": False, "issue_session": False, "accept_token": False},
    ],
    ids=["issued unaccepted", "session issued unaccepted", "kind missing", "share", "nothing"],
)
def test_an_unsound_document_cannot_be_made(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="not sound"):
        replace(DUAL, **change)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("phase", "dula"),
        ("status", None),
        ("accept_token", 1),
        ("stage_revision", True),
        ("issue_token", {"web": 1.5, "mobile": 0, "machine": 0}),
        ("pending", "dual-10"),
        ("surprise", 1),
    ],
)
def test_a_document_of_another_shape_is_refused(key: str, value: object) -> None:
    document = {**json.loads(DUAL.to_json()), key: value}
    with pytest.raises(ConfigurationError, match="rollout document"):
        RolloutState.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[]", "{}", '"x"', "{", "NaN"])
def test_text_that_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="rollout document"):
        RolloutState.from_json(text)


def test_bake_time_stands_still_while_paused() -> None:
    paused = replace(DUAL, paused_at=DUAL.entered_at + 100, paused_for=40.0)
    assert paused.baked(DUAL.entered_at + 9_999) == 60
    assert replace(paused, paused_at=None).baked(DUAL.entered_at + 200) == 160
