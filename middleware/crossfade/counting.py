"""Count each request, once: who decided it, what it brought, why something was refused."""

from crossfade.credentials import Authorization
from crossfade.decision import Effect, Verdict
from crossfade.errors import Reason
from crossfade.metrics import Metrics
from crossfade.principal import Credential
from crossfade.request import Authenticated

_OF_SESSION = frozenset(
    {
        Reason.SESSION_GONE,
        Reason.SESSION_TAMPERED,
        Reason.SESSION_UNKNOWN,
        Reason.LEGACY_REFUSED,
    }
)
_PRESENTED = {
    (False, False): "none",
    (False, True): "session",
    (True, False): "token",
    (True, True): "both",
}
# Rows that decide although a store did not answer. Row 9 covers tampered sessions as well.
_DEGRADED = {"6": "sessions", "22": "sql", "23": "sql"}
_DECISIONS = {
    Verdict.TOKEN: "allow",
    Verdict.SESSION: "allow",
    Verdict.ANONYMOUS: "anonymous",
    Verdict.LEGACY: "anonymous",
    Verdict.UNAUTHORIZED: "reject",
    Verdict.BAD_REQUEST: "reject",
    Verdict.CONFLICT: "reject",
    Verdict.UNAVAILABLE: "error",
}


class RequestCounter:
    """The one place that counts requests: extraction and verification may run more than once."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def count(self, request: Authenticated, seconds: float) -> None:
        """Count one request, once."""
        metrics, decision, credentials = self._metrics, request.decision, request.credentials
        verdict, client = decision.verdict, request.client
        credential: Credential = "none"
        if verdict is Verdict.TOKEN:
            credential = "token"
        elif verdict is Verdict.SESSION:
            credential = "session"
        elif request.token is not None or (credentials.bearer is not None):
            credential = "token"
        metrics.inc("decisions", client, credential, _DECISIONS[verdict])
        metrics.observe("auth_duration_seconds", seconds, credential)
        has_token = bool(credentials.bearer or credentials.access)
        metrics.inc("presented", client, _PRESENTED[has_token, request.presented is not None])
        if decision.reason is not None:
            self._count_failure(request, decision.reason)
        if credentials.authorization is Authorization.EMPTY:
            metrics.inc("failures", client, "token", Reason.EMPTY_BEARER)
        if Effect.COMPARE in decision.effects:
            metrics.inc("comparisons", "agree")
        if decision.row in _DEGRADED:
            metrics.inc("degraded_decisions", _DEGRADED[decision.row])

    def _count_failure(self, request: Authenticated, reason: Reason) -> None:
        client = request.client
        of_session = reason in _OF_SESSION
        self._metrics.inc("failures", client, "session" if of_session else "token", reason)
        if reason is Reason.IDENTITY_CONFLICT:
            self._metrics.inc("identity_conflicts", client)
            self._metrics.inc("comparisons", "differ")
        if request.decision.verdict is Verdict.SESSION and not of_session:
            self._metrics.inc("fallbacks", client, "token_to_session")
        if request.decision.verdict is Verdict.TOKEN and of_session:
            self._metrics.inc("fallbacks", client, "session_to_token")
