"""Who a request is: the identity a credential proves, and the user the application sees."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.authentication import AuthCredentials, BaseUser

Credential = Literal["token", "session", "none"]
"""Which credential decided: the value of the metric label of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who somebody is. Two credentials agree only if all three parts are equal.

    Attributes:
        subject: the user's id, always text, never empty.
        tenant: the customer or realm, empty where the application has none.
        actor: the subject who impersonates, empty if nobody does.
    """

    subject: str
    tenant: str = ""
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal(BaseUser):
    """The authenticated user of a request: Starlette's `request.user`.

    Attributes:
        who: subject, tenant and actor.
        credential: which credential proved it.
        client: client kind: `web`, `mobile` or `machine`.
        login_id: the login's `sid` as text, for token users; None for session users.
        auth_time: when the user last proved who they are, POSIX seconds; None if unknown.
        scopes: granted scopes; `authenticated` is added for Starlette's `@requires`.
        claims: the verified claims of the access token; empty for session users.
    """

    who: Identity
    credential: Credential
    client: str
    login_id: str | None = None
    auth_time: float | None = None
    scopes: tuple[str, ...] = ()
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_authenticated(self) -> bool:
        """Say that this user proved an identity: always true."""
        return True

    @property
    def display_name(self) -> str:
        """Return the subject: the one name we hold."""
        return self.who.subject

    @property
    def identity(self) -> str:
        """Return the subject: what Starlette calls the identity of a user."""
        return self.who.subject

    @property
    def subject(self) -> str:
        """Return the user's id."""
        return self.who.subject


def credentials_of(principal: Principal) -> AuthCredentials:
    """Return what Starlette's `@requires` looks at."""
    return AuthCredentials(["authenticated", *principal.scopes])
