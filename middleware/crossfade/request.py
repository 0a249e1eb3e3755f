"""What is known of one request: made by the authenticator, read by all that follow."""

from dataclasses import dataclass, field
from functools import cached_property

from starlette.types import Scope

from crossfade.anchors import Kept
from crossfade.credentials import Credentials, Headers
from crossfade.decision import Decision, Verdict
from crossfade.keys.roots import RootSecrets
from crossfade.legacy.base import LegacySession, Presented, SessionState
from crossfade.logins import Device
from crossfade.policy import header
from crossfade.principal import Identity, Principal
from crossfade.rollout.state import Mode, RolloutState
from crossfade.settings import ClientKind
from crossfade.tokens.claims import VerifiedToken
from crossfade.tokens.refresh import RefreshToken, decode

ABSENT_SESSION = LegacySession(state=SessionState.ABSENT)
_UNDECIDED = Decision(row="", verdict=Verdict.ANONYMOUS)


@dataclass(slots=True)
class Reply:
    """What goes out with a response besides the application's own headers.

    Attributes:
        cookies: Set-Cookie values of ours.
        is_due: one of them must arrive, because what it replaces is spent.
        refuse: the application's reply cannot stand: answer 503 instead.
    """

    cookies: list[bytes] = field(default_factory=list, repr=False)
    is_due: bool = False
    refuse: bool = False


@dataclass(slots=True)
class Given:
    """The legacy session that the application was given for one request.

    Attributes:
        value: the cookie's value; None if it was given none.
        before: what that session was.
        is_assumed: we did not read it: it is the token's own anchor.
        is_supplied: the client did not send it: we did.
    """

    value: str | None = field(default=None, repr=False)
    before: LegacySession = ABSENT_SESSION
    is_assumed: bool = False
    is_supplied: bool = False


@dataclass
class Authenticated:
    """One request, decided, and all that its reply will need.

    Attributes:
        scope: as the application will see it.
        session: the presented legacy session; `session_is_assumed` if it was not read.
        token: the winning token, or the ambient one beside a winning session; None without one.
        kept: the legacy session to give the application for the token; None if none is needed.
        restored_value: the cookie of a session given back on this request.
        held: verified tokens that came, the winning one first, expired ones too.
        reply: cookies that this request already owes its client.
        queue, unended: log-outs that the database would not take, by session and by login.
        is_declared_login: the application said that its user logged in.
    """

    scope: Scope
    method: str
    path: str
    headers: Headers
    state: RolloutState
    mode: Mode
    client: ClientKind
    credentials: Credentials
    presented: Presented | None
    own_cookie_names: frozenset[bytes]
    roots: RootSecrets
    session: LegacySession = ABSENT_SESSION
    session_is_assumed: bool = False
    token: VerifiedToken | None = None
    held: tuple[VerifiedToken, ...] = ()
    kept: Kept | None = None
    restored_value: str | None = field(default=None, repr=False)
    decision: Decision = _UNDECIDED
    principal: Principal | None = None
    reply: Reply = field(default_factory=Reply)
    queue: list[tuple[str, str]] = field(default_factory=list, repr=False)
    unended: list[bytes] = field(default_factory=list)
    is_declared_login: bool = False

    @cached_property
    def refresh(self) -> RefreshToken | None:
        """The refresh token whose tag verifies; judged only where somebody asks."""
        for value in self.credentials.refresh:
            if (token := decode(value, self.roots)) is not None:
                return token
        return None

    @property
    def presented_sids(self) -> list[bytes]:
        """The logins whose tokens this request proved to hold."""
        sids = [token.sid for token in self.held]
        if self.refresh is not None:
            sids.append(self.refresh.sid)
        return list(dict.fromkeys(sids))

    @property
    def principal_identity(self) -> Identity | None:
        """Who the request is, None if nobody."""
        return None if self.principal is None else self.principal.who

    @property
    def presented_sid(self) -> bytes | None:
        """The login that this request proved to hold, if any."""
        sids = self.presented_sids
        return sids[0] if sids else None

    @property
    def refresh_is_proved(self) -> bool:
        """Whether the client also holds the refresh secret of the winning token's login."""
        return (
            self.refresh is not None
            and self.token is not None
            and self.refresh.sid == self.token.sid
        )

    @property
    def session_is_anonymous(self) -> bool:
        """Whether a legacy session without a user was presented."""
        return self.session.state is SessionState.ANONYMOUS

    @property
    def device(self) -> Device:
        """What the client looks like, shortened."""
        client = self.scope.get("client")
        agent = header(self.headers, b"user-agent") or b""
        return Device(
            address=client[0] if client else "", agent=agent[:200].decode("latin-1", "replace")
        )

    def journal(self, *, session: str, tenant: str) -> None:
        """Queue a log-out that could not be written."""
        self.queue.append((tenant, session))
