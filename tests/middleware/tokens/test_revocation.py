from dataclasses import dataclass

import pytest

from crossfade.principal import Identity
from crossfade.tokens.revocation import (
    FeedEntry,
    FeedGap,
    FeedHead,
    FeedKind,
    Revocations,
    cutoff_value,
    not_before_value,
    reauth_value,
)

ADA, BOB = Identity(subject="ada"), Identity(subject="bob")
SID, OTHER = b"s" * 16, b"o" * 16
LATER = 1_000_000.0
HEAD = FeedHead(epoch="one", seq=0)


@dataclass(frozen=True, kw_only=True)
class Token:
    sid: bytes = SID
    identity: Identity = ADA
    kid: str = "k1"
    auth_time: float = 100.5


def _entry(seq: int, kind: FeedKind | str, value: bytes, until: float = LATER) -> FeedEntry:
    return FeedEntry(seq=seq, kind=kind, value=value, at=float(seq), expires_at=until)


def _with(*entries: tuple[FeedKind | str, bytes]) -> Revocations:
    revocations = Revocations()
    revocations.reset([], HEAD)
    revocations.apply(_entry(n, *entry) for n, entry in enumerate(entries, 1))
    return revocations


@pytest.mark.parametrize(
    ("kind", "value", "spared"),
    [
        (FeedKind.LOGIN, SID, Token(sid=OTHER)),
        (FeedKind.KEY, b"k1", Token(kid="k2")),
        (FeedKind.ALL, cutoff_value(100.5), Token(auth_time=100.6)),
        (FeedKind.SUBJECT, not_before_value(ADA, 100.5), Token(identity=BOB)),
        (FeedKind.SUBJECT, not_before_value(ADA, 100.5), Token(auth_time=100.6)),
        (FeedKind.SUBJECT, not_before_value(ADA, 100.5, OTHER), Token(sid=OTHER)),
    ],
)
def test_an_entry_revokes_what_it_names_and_nothing_else(
    kind: FeedKind, value: bytes, spared: Token
) -> None:
    revocations = _with((kind, value))
    assert revocations.is_revoked(Token())
    assert not revocations.is_revoked(spared)
    assert not Revocations().is_revoked(Token())


def test_a_not_before_covers_whoever_acts_for_the_subject() -> None:
    revocations = _with((FeedKind.SUBJECT, not_before_value(ADA, 100.5)))
    assert revocations.is_revoked(Token(identity=Identity(subject="ada", actor="root")))
    assert not revocations.is_revoked(Token(identity=Identity(subject="ada", tenant="acme")))


def test_a_lift_undoes_a_tombstone_and_a_later_tombstone_stands() -> None:
    digest = b"d" * 32
    assert _with((FeedKind.TOMBSTONE, digest)).is_buried(digest)
    lifted = [(FeedKind.TOMBSTONE, digest), (FeedKind.LIFT, digest)]
    assert not _with(*lifted).is_buried(digest)
    assert _with(*lifted, (FeedKind.TOMBSTONE, digest)).is_buried(digest)


def test_a_hint_from_before_a_rebind_is_stale_and_one_from_after_is_not() -> None:
    revocations = _with((FeedKind.ANCHOR, SID))
    assert revocations.is_rebound(SID, since=0.0)
    assert not revocations.is_rebound(SID, since=1.5)
    assert not revocations.is_rebound(OTHER, since=0.0)


def test_a_change_of_roles_names_its_time_and_its_subject_alone() -> None:
    revocations = _with((FeedKind.REAUTH, reauth_value(ADA, 7.0)))
    assert revocations.reauth_since(ADA) == 7.0
    assert revocations.reauth_since(BOB) is None
    assert not revocations.is_revoked(Token())


def test_a_missing_number_is_a_fault_and_what_came_before_it_holds() -> None:
    revocations = _with()
    with pytest.raises(FeedGap):
        revocations.apply([_entry(1, FeedKind.LOGIN, SID), _entry(3, FeedKind.LOGIN, OTHER)])
    assert revocations.cursor == 1
    assert revocations.is_revoked(Token())
    assert not revocations.is_revoked(Token(sid=OTHER))


@pytest.mark.parametrize(
    "head",
    [FeedHead(epoch="two", seq=5), FeedHead(epoch="one", seq=0), FeedHead(epoch="one", seq=9)],
    ids=["restored", "set back", "pruned away"],
)
def test_a_feed_that_is_another_one_is_loaded_anew(head: FeedHead) -> None:
    revocations = _with((FeedKind.LOGIN, SID))
    with pytest.raises(FeedGap):
        revocations.apply([], head)


def test_a_reset_replaces_everything_and_may_have_holes_where_entries_expired() -> None:
    revocations = _with((FeedKind.LOGIN, SID))
    revocations.reset([_entry(7, FeedKind.LOGIN, OTHER)], FeedHead(epoch="two", seq=9))
    assert (revocations.cursor, revocations.epoch, revocations.newest_at) == (9, "two", 7.0)
    assert revocations.is_revoked(Token(sid=OTHER))
    assert not revocations.is_revoked(Token())


def test_an_entry_taken_early_counts_at_once_and_moves_no_cursor() -> None:
    revocations = _with()
    revocations.take_early(_entry(0, FeedKind.LOGIN, SID))
    assert revocations.is_revoked(Token())
    assert revocations.cursor == 0


def test_entries_of_a_later_version_are_counted_and_forbid_nothing() -> None:
    revocations = _with(("novelty", b"?"), (FeedKind.LOGIN, SID))
    assert revocations.cursor == 2
    assert revocations.is_revoked(Token())


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (FeedKind.LOGIN, SID),
        (FeedKind.KEY, b"k1"),
        (FeedKind.ALL, cutoff_value(200.0)),
        (FeedKind.SUBJECT, not_before_value(ADA, 200.0)),
    ],
)
def test_an_entry_is_kept_until_its_expiry_and_forgotten_soon_after(
    kind: FeedKind, value: bytes
) -> None:
    revocations = Revocations()
    revocations.apply([_entry(1, kind, value, until=1_000.0)])
    revocations.prune(999.0)
    assert revocations.is_revoked(Token())
    revocations.prune(1_061.0)
    assert not revocations.is_revoked(Token())


def test_an_entry_that_was_prolonged_outlives_its_first_expiry() -> None:
    revocations = Revocations()
    revocations.apply(
        [_entry(1, FeedKind.LOGIN, SID, 100.0), _entry(2, FeedKind.LOGIN, SID, 500.0)]
    )
    revocations.prune(200.0)
    assert revocations.is_revoked(Token())
    revocations.prune(600.0)
    assert not revocations.is_revoked(Token())
