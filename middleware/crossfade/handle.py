"""What the application finds in `scope["crossfade"]`."""

from starlette.requests import HTTPConnection

from crossfade.principal import Principal
from crossfade.request import Authenticated


class Handle:
    """One request as Crossfade sees it, for application code."""

    __slots__ = ("_request",)

    def __init__(self, request: Authenticated) -> None:
        self._request = request

    @property
    def principal(self) -> Principal | None:
        """Who the request is; None if nobody."""
        return self._request.principal

    @property
    def phase(self) -> str:
        """The phase of the rollout that this process runs."""
        return str(self._request.state.phase)

    @property
    def row(self) -> str:
        """The row of the decision table that decided; for support and tests."""
        return self._request.decision.row

    def logged_in(self) -> None:
        """Say that the user has proved who they are on this request, by whatever means.

        Most log-ins are observed. This one is for those that leave no sign in the session: a second
        log-in of the same user (step-up) gets its new `auth_time` by it.
        """
        self._request.is_declared_login = True

    def issues_tokens(self) -> bool:
        """Say whether the request's subject is in the cohort that is issued tokens."""
        identity = self._request.principal_identity
        return identity is not None and self._request.state.selects(
            self._request.client, identity.subject
        )


def login(connection: HTTPConnection) -> None:
    """Say that the user of this request has just logged in; see `Handle.logged_in`.

    For applications that log in by themselves. Raises RuntimeError outside of CrossfadeMiddleware.
    """
    handle = connection.scope.get("crossfade")
    if not isinstance(handle, Handle):
        raise RuntimeError(  # noqa: TRY004 - a place is wrong, not a type
            "crossfade.login needs CrossfadeMiddleware around the application"
        )
    handle.logged_in()
