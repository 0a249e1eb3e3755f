"""What has been revoked, as one process holds it in memory: asked on every request, without I/O.

A follower feeds it from the revocation feed, as `stores/feed.py` writes it.
"""

import hashlib
import math
import struct
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Protocol

from crossfade.errors import CrossfadeError
from crossfade.keys.roots import framed
from crossfade.principal import Identity

SUBJECT_BYTES = 16
_FLOAT = struct.Struct(">d")
_BUCKET = 60.0


class FeedKind(StrEnum):
    """What a feed entry says. The value's bytes are given in brackets."""

    LOGIN = "login"
    """A login has ended. [sid]"""
    SUBJECT = "subject"
    """Logins of a subject up to a time are void, save one. [subject, time, sid or nothing]"""
    KEY = "key"
    """A signing key is no longer trusted. [kid, UTF-8]"""
    ANCHOR = "anchor"
    """A login's legacy session has another key now: what older tokens hint at is stale. [sid]"""
    TOMBSTONE = "tombstone"
    """A legacy session must not be authenticated any more. [anchor digest]"""
    LIFT = "lift"
    """A log-in was observed on a buried session: it may be again. [anchor digest]"""
    REAUTH = "reauth"
    """A subject's roles changed: access tokens made before count as expired. [subject, time]"""
    ALL = "all"
    """Every login up to a time is void. [time]"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedEntry:
    """One entry of the feed. `seq` and `at` (POSIX seconds) are set when it is published.

    `kind` is text where a later version published it; such an entry counts and forbids nothing.
    """

    kind: FeedKind | str
    value: bytes
    expires_at: float
    seq: int = 0
    at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedHead:
    """The last number of the feed, and the epoch that numbers are counted in.

    The epoch changes when the database is restored: a cursor of another one means nothing.
    """

    epoch: str
    seq: int


class FeedGap(CrossfadeError):
    """A number of the feed is missing, or the feed is another one: load everything again."""


class Revocable(Protocol):
    """What revocation looks at: a verified token, or anything with these parts."""

    @property
    def sid(self) -> bytes:
        """The login."""
        ...

    @property
    def identity(self) -> Identity:
        """Whose login it is."""
        ...

    @property
    def kid(self) -> str:
        """The key that signed."""
        ...

    @property
    def auth_time(self) -> float:
        """When the subject last proved who they are."""
        ...


@lru_cache(maxsize=16_384)
def _subject_key(tenant: str, subject: str) -> bytes:
    digest = hashlib.sha256(framed(tenant.encode(), subject.encode())).digest()
    return digest[:SUBJECT_BYTES]


def subject_key(identity: Identity) -> bytes:
    """Return what the feed calls a subject: 16 bytes of a hash, the same whoever acts for them."""
    return _subject_key(identity.tenant, identity.subject)


def not_before_value(identity: Identity, at: float, except_sid: bytes | None = None) -> bytes:
    """Return the value of a SUBJECT entry: logins with `auth_time <= at` are void, save one."""
    return subject_key(identity) + _FLOAT.pack(at) + (except_sid or b"")


def reauth_value(identity: Identity, at: float) -> bytes:
    """Return the value of a REAUTH entry."""
    return subject_key(identity) + _FLOAT.pack(at)


def cutoff_value(at: float) -> bytes:
    """Return the value of an ALL entry."""
    return _FLOAT.pack(at)


class _Expiring(dict[bytes, int]):
    """Digests with their expiry in minutes, rounded up; sweeping touches only what has expired.

    A million of them take about 150 MB: one shared integer a minute instead of a float each.
    """

    def __init__(self) -> None:
        super().__init__()
        self._due: defaultdict[int, list[bytes]] = defaultdict(list)

    def add(self, key: bytes, expires_at: float) -> None:
        minute = math.ceil(expires_at / _BUCKET)
        if self.get(key, 0) < minute:
            self[key] = minute
            self._due[minute].append(key)

    def prune(self, now: float) -> None:
        for minute in [m for m in self._due if m * _BUCKET <= now]:
            for key in self._due.pop(minute):
                # Added again meanwhile with a later expiry, it stands in a later bucket too.
                if self.get(key) == minute:
                    del self[key]


class Revocations:
    """The revocations in force. Not for several threads; every question is answered without I/O.

    Attributes:
        cursor: number of the last entry applied.
        epoch: the feed it belongs to; empty until the first `reset`.
        newest_at: database time of the newest entry applied, POSIX seconds.
    """

    def __init__(self) -> None:
        self._clear()
        self.epoch = ""
        self.cursor = 0
        self.newest_at = 0.0

    def _clear(self) -> None:
        self._logins = _Expiring()
        self._tombstones = _Expiring()
        self._keys: dict[str, float] = {}
        # Each with its expiry last.
        self._subjects: dict[bytes, tuple[float, bytes, float]] = {}
        self._anchors: dict[bytes, tuple[float, float]] = {}
        self._reauths: dict[bytes, tuple[float, float]] = {}
        self._cutoff = -math.inf
        self._cutoff_until = -math.inf

    def reset(self, entries: Iterable[FeedEntry], head: FeedHead) -> None:
        """Replace everything by what the feed holds now: all unexpired entries and their head."""
        self._clear()
        for entry in entries:
            self._take(entry)
        self.epoch, self.cursor = head.epoch, head.seq

    def apply(self, entries: Iterable[FeedEntry], head: FeedHead | None = None) -> None:
        """Take the entries that follow the cursor. What came before a gap stays applied.

        Raises:
            FeedGap: a number is missing, or the head is of another epoch or not where it must be.
        """
        if head is not None and (head.epoch != self.epoch or head.seq < self.cursor):
            raise FeedGap("the feed was replaced: its database was restored or failed over")
        before = self.cursor
        for entry in entries:
            if entry.seq != self.cursor + 1:
                raise FeedGap(f"after entry {self.cursor} came {entry.seq}")
            self._take(entry)
            self.cursor = entry.seq
        if head is not None and before == self.cursor < head.seq:
            raise FeedGap(f"entries after {self.cursor} are gone: the head is {head.seq}")

    def take_early(self, entry: FeedEntry) -> None:
        """Take an entry that this process has just caused, before the feed brings it."""
        self._take(entry)

    def is_revoked(self, token: Revocable) -> bool:
        """Say whether the token's login, subject, key or everything was revoked."""
        return (
            token.sid in self._logins
            or token.kid in self._keys
            or token.auth_time <= self._cutoff
            or (bool(self._subjects) and self._is_void(token))
        )

    def is_buried(self, digest: bytes) -> bool:
        """Say whether the legacy session of that anchor digest must not be authenticated."""
        return digest in self._tombstones

    def is_rebound(self, sid: bytes, since: float) -> bool:
        """Say whether a login changed its legacy session at or after `since`, POSIX seconds.

        The anchor hint in a token issued at `since` is then stale; the login row is the truth.
        """
        found = self._anchors.get(sid)
        return found is not None and found[0] >= since

    def reauth_since(self, identity: Identity) -> float | None:
        """Return the time before which the subject's access tokens count as expired, or None."""
        found = self._reauths.get(subject_key(identity)) if self._reauths else None
        return None if found is None else found[0]

    def prune(self, now: float) -> None:
        """Forget entries that expired by `now`."""
        self._logins.prune(now)
        self._tombstones.prune(now)
        self._keys = {key: until for key, until in self._keys.items() if until > now}
        self._subjects = {k: v for k, v in self._subjects.items() if v[-1] > now}
        self._anchors = {k: v for k, v in self._anchors.items() if v[-1] > now}
        self._reauths = {k: v for k, v in self._reauths.items() if v[-1] > now}
        if self._cutoff_until <= now:
            self._cutoff = -math.inf

    def _is_void(self, token: Revocable) -> bool:
        found = self._subjects.get(subject_key(token.identity))
        if found is None or token.auth_time > found[0]:
            return False
        # A legacy session has no sid, and where no login is kept the entry names none either.
        return not found[1] or token.sid != found[1]

    def _take(self, entry: FeedEntry) -> None:
        value, until = entry.value, entry.expires_at
        self.newest_at = max(self.newest_at, entry.at)
        match entry.kind:
            case FeedKind.LOGIN:
                self._logins.add(value, until)
            case FeedKind.TOMBSTONE:
                self._tombstones.add(value, until)
            case FeedKind.LIFT:
                self._tombstones.pop(value, None)
            case FeedKind.ANCHOR:
                self._anchors[value] = (entry.at, until)
            case FeedKind.KEY:
                self._keys[value.decode()] = until
            case FeedKind.SUBJECT:
                subject, (at,), kept = value[:16], _FLOAT.unpack(value[16:24]), value[24:]
                self._subjects[subject] = (at, kept, until)
            case FeedKind.REAUTH:
                self._reauths[value[:16]] = (*_FLOAT.unpack(value[16:24]), until)
            case FeedKind.ALL:
                self._cutoff = max(self._cutoff, *_FLOAT.unpack(value))
                self._cutoff_until = max(self._cutoff_until, until)
