"""What a presented access token turned out to be: verified, and held against what has changed."""

from crossfade.clock import Clock
from crossfade.credentials import Authorization, Credentials
from crossfade.decision import TokenEvidence, TokenState
from crossfade.errors import KeysUnavailable, Reason, TokenRejected
from crossfade.rollout.source import Follower
from crossfade.tokens.claims import VerifiedToken
from crossfade.tokens.verifier import BEARER_CAP, COOKIE_CAP, TokenVerifier

FORGIVEN_AFTER_EXPIRY = 300.0
"""Seconds after its end for which an expired bearer may lean on the session beside it (row 15)."""
NO_TOKEN = TokenEvidence(state=TokenState.ABSENT)
OUR_FAULT = TokenEvidence(state=TokenState.UNKNOWN, reason=Reason.KEYS_UNAVAILABLE)
_FOREIGN = TokenEvidence(state=TokenState.FOREIGN, reason=Reason.FOREIGN)
_STALE = TokenEvidence(state=TokenState.UNKNOWN, reason=Reason.REVOCATIONS_STALE)
_PREFERENCE = (
    TokenState.OK,
    TokenState.UNKNOWN,
    TokenState.EXPIRED,
    TokenState.REVOKED,
    TokenState.BAD,
)

Judged = tuple[TokenEvidence, VerifiedToken | None]
"""The evidence, and the token itself where its signature is good."""


class TokenJudge:
    """Judges the bearer and the access cookies of a request; no network, no database."""

    def __init__(
        self, *, verifier: TokenVerifier, follower: Follower, clock: Clock, leeway: float
    ) -> None:
        self._verifier, self._follower = verifier, follower
        self._clock, self._leeway = clock, leeway

    def bearer(self, credentials: Credentials) -> Judged:
        """Judge the Authorization header."""
        if credentials.bearer is not None:
            return self._judge(credentials.bearer, BEARER_CAP)
        if credentials.authorization is Authorization.FOREIGN:
            return _FOREIGN, None
        return NO_TOKEN, None

    def cookies(self, credentials: Credentials) -> tuple[TokenEvidence, VerifiedToken | None, bool]:
        """Judge each access cookie; good ones that name different identities are `several`."""
        if not credentials.access:
            return NO_TOKEN, None, False
        if len(credentials.access) == 1:
            return (*self._judge(credentials.access[0], COOKIE_CAP), False)
        judged = [self._judge(value, COOKIE_CAP) for value in credentials.access]
        good = [pair for pair in judged if pair[0].state is TokenState.OK]
        several = len({evidence.identity for evidence, _ in good}) > 1
        best = min(judged, key=lambda pair: _PREFERENCE.index(pair[0].state))
        return (*best, several)

    def _judge(self, text: bytes, cap: int) -> Judged:
        try:
            token = self._verifier.verify(text, cap=cap)
        except TokenRejected as error:
            return TokenEvidence(state=TokenState.BAD, reason=error.reason), None
        except KeysUnavailable:
            return OUR_FAULT, None
        evidence = self._judge_life(token)
        if evidence.state is TokenState.REVOKED:
            self._verifier.forget(text)  # and with it the key of its legacy session
        return evidence, token

    def _judge_life(self, token: VerifiedToken) -> TokenEvidence:
        """Judge what changes during a token's life: revocation, expiry, and whether we can know."""
        follower = self._follower
        if follower.revocations.is_revoked(token):
            return TokenEvidence(
                state=TokenState.REVOKED, identity=token.identity, reason=Reason.REVOKED
            )
        if follower.is_stale:
            return _STALE
        over = self._clock.time() - token.expires_at - self._leeway
        reauth = follower.revocations.reauth_since(token.identity)
        if over < 0 and (reauth is None or token.issued_at > reauth):
            return TokenEvidence(state=TokenState.OK, identity=token.identity)
        return TokenEvidence(
            state=TokenState.EXPIRED,
            identity=token.identity,
            reason=Reason.EXPIRED,
            is_forgivable=over <= FORGIVEN_AFTER_EXPIRY,
        )
