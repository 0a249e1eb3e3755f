"""Every error that Crossfade raises, and every reason for which it refuses a credential.

CrossfadeError
├── ConfigurationError          a setting, an extra or the middleware order is wrong; says the mend
│   └── SchemaOutdated          the database lacks a migration: `crossfade db upgrade`
├── CredentialRejected          what came in does not prove an identity; carries a Reason
│   ├── TokenRejected           an access token
│   └── RefreshRejected         a refresh token; carries its outcome
├── NotIssued                   this subject is not issued tokens (now)
├── TokenTooLarge               a minted token does not fit its carrier
├── StoreUnavailable            our database or the session store did not answer in time
│   └── OutcomeUnknown          a write was sent and no answer came
├── KeysUnavailable             no key to sign with, or none could be loaded
├── KeyConflict                 a key is unknown, or not in the state that a step starts from
└── RevisionConflict            the rollout document moved on meanwhile
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why a credential was refused: metric label, audit and log field, runbook anchor at once."""

    TOO_LARGE = "too_large"
    """Longer than the cap of its carrier; nothing was parsed."""
    MALFORMED = "malformed"
    """Not ASCII, not three canonical base64url parts, or not strict JSON."""
    BAD_TYPE = "bad_type"
    """The header's `typ` is not `at+jwt` (RFC 9068 2.1)."""
    FORBIDDEN_HEADER = "forbidden_header"
    """A header member that we never honour: crit, b64, zip, enc, cty, jku, jwk, x5*."""
    UNKNOWN_KID = "unknown_kid"
    """No key of this issuer and purpose has that `kid`."""
    BAD_ALGORITHM = "bad_algorithm"
    """`alg` is not the one algorithm of the key."""
    BAD_SIGNATURE = "bad_signature"
    """The signature does not verify."""
    BAD_CLAIMS = "bad_claims"
    """A required claim is missing, or one has the wrong type or range."""
    BAD_ISSUER = "bad_issuer"
    """`iss` is another issuer."""
    BAD_AUDIENCE = "bad_audience"
    """`aud` does not name this application."""
    NOT_YET_VALID = "not_yet_valid"
    """`nbf` or `iat` lies in the future beyond the leeway."""
    EXPIRED = "expired"
    """Past `exp` and leeway; all else is valid."""
    REVOKED = "revoked"
    """The login, its subject, its key or everything was revoked."""
    KEYS_UNAVAILABLE = "keys_unavailable"
    """No key set could be loaded: our fault."""
    REVOCATIONS_STALE = "revocations_stale"
    """The revocation view is older than `max_staleness`: our fault."""
    FOREIGN = "foreign"
    """Another scheme, or a bearer that is no JWT: the application's own business."""
    EMPTY_BEARER = "empty_bearer"
    """`Bearer` with nothing, `undefined` or `null`: counted, treated as absent."""
    SEVERAL_CREDENTIALS = "several_credentials"
    """Two bearers, or two of our own that name different identities."""
    SESSION_GONE = "session_gone"
    """The legacy session is unknown or has ended."""
    SESSION_TAMPERED = "session_tampered"
    """The legacy cookie does not verify."""
    SESSION_UNKNOWN = "session_unknown"
    """The session store did not answer: our fault."""
    LEGACY_REFUSED = "legacy_refused"
    """A live legacy session in phase `tokens`, where it authenticates nobody."""
    IDENTITY_CONFLICT = "identity_conflict"
    """Token and session name different identities."""
    CSRF = "csrf"
    """An unsafe request by cookie that did not come from our own pages."""


class CrossfadeError(Exception):
    """Root of all errors raised by Crossfade. Messages never hold a credential."""


class ConfigurationError(CrossfadeError):
    """A setting, an extra or the order of the middleware is wrong; the text says the mend."""


class SchemaOutdated(ConfigurationError):
    """The database is not at the schema that this version needs."""


class CredentialRejected(CrossfadeError):
    """A presented credential proves nothing, for a stated reason."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason


class TokenRejected(CredentialRejected):
    """An access token was refused. `detail` is for operators and holds no part of the token."""


class RefreshRejected(CredentialRejected):
    """A refresh token was refused.

    Attributes:
        outcome: a member of `RefreshOutcome`.
        since: when its login ended or was keyed anew, POSIX seconds; None if unknown.
    """

    def __init__(self, outcome: str, since: float | None = None) -> None:
        super().__init__(Reason.EXPIRED if outcome == "expired" else Reason.REVOKED, outcome)
        self.outcome = outcome
        self.since = since


class NotIssued(CrossfadeError):
    """Tokens are not issued to this subject now; the legacy session goes on."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class TokenTooLarge(CrossfadeError):
    """A minted token is longer than its carrier takes; `size` and `budget` are in bytes."""

    def __init__(self, size: int, budget: int) -> None:
        super().__init__(f"the token takes {size} bytes, {budget} are left for it")
        self.size = size
        self.budget = budget


class StoreUnavailable(CrossfadeError):
    """A store did not answer in time. `backend` is the metric label: sql, sessions, redis."""

    def __init__(self, backend: str, detail: str = "") -> None:
        super().__init__(f"{backend} is unavailable" + (f": {detail}" if detail else ""))
        self.backend = backend


class OutcomeUnknown(StoreUnavailable):
    """A write was sent and its answer never came: it may have happened."""


class KeysUnavailable(CrossfadeError):
    """There is no active signing key, or the key set could not be loaded."""


class KeyConflict(CrossfadeError):
    """A signing key is unknown, or not in the state that the step starts from; says which."""


class RevisionConflict(CrossfadeError):
    """The rollout document is at another revision than the change was made for."""

    def __init__(self, expected: int, head: int) -> None:
        super().__init__(f"the head is revision {head}, the change was made for {expected}")
        self.expected = expected
        self.head = head
