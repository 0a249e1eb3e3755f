"""Mint access tokens (RFC 9068), each verified by its minter before it leaves."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from crossfade.clock import Clock
from crossfade.errors import (
    KeysUnavailable,
    NotIssued,
    Reason,
    TokenRejected,
    TokenTooLarge,
)
from crossfade.keys.ring import KeyRing, SigningKey
from crossfade.keys.roots import RootSecrets
from crossfade.tokens import jws
from crossfade.tokens.anchor import seal
from crossfade.tokens.claims import AccessGrant, VerifiedToken, claims_of
from crossfade.tokens.verifier import BEARER_CAP, TokenVerifier

_JITTER = 0.05
_JTI_BYTES = 16
_KEY_FAULTS = frozenset({Reason.UNKNOWN_KID, Reason.BAD_ALGORITHM, Reason.BAD_SIGNATURE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted:
    """A new access token: its text, what it proves, and whole seconds until it ends."""

    token: str = field(repr=False)
    verified: VerifiedToken
    expires_in: int


class Issuer:
    """Mints the access tokens of one application.

    Args:
        issuer: `iss`.
        audience: `aud`: this application alone.
        keys: gives the ring of the moment.
        verifier: checks each token before it leaves; of the same issuer, audience and keys.
        roots: seals the anchor claim.
        clock: dates the tokens.
        access_ttl: their life in seconds; up to 5 % less by chance, so that clients that began
            together do not refresh together.
        token_bytes: source of randomness.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        keys: Callable[[], KeyRing],
        verifier: TokenVerifier,
        roots: RootSecrets,
        clock: Clock,
        access_ttl: float,
        token_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = keys
        self._verifier = verifier
        self._roots = roots
        self._clock = clock
        self._access_ttl = access_ttl
        self._token_bytes = token_bytes
        self._headers: dict[SigningKey, bytes] = {}

    def check_key(self) -> None:
        """Raise KeysUnavailable where nothing can be minted: before anything is spent for it."""
        _ = self._keys().signing

    def mint(self, grant: AccessGrant, *, budget: int | None = None) -> Minted:
        """Make a token for a grant.

        Args:
            grant: what it is to say.
            budget: bytes that its carrier has left for it; without one, what a bearer may be long.

        Raises:
            KeysUnavailable: no active signing key, or tokens of it do not verify.
            TokenTooLarge: the token does not fit the budget.
            NotIssued: the grant holds what a token cannot say (`claims`).
        """
        key = self._keys().signing
        payload = self._payload(grant)
        signed = self._header(key) + b"." + jws.encode(payload)
        token = signed + b"." + jws.encode(key.sign(signed))
        limit = BEARER_CAP if budget is None else min(budget, BEARER_CAP)
        if len(token) > limit:
            raise TokenTooLarge(len(token), limit)
        verified = self._check(token)
        return Minted(
            token=token.decode(),
            verified=verified,
            expires_in=verified.expires_at - verified.issued_at,
        )

    def _payload(self, grant: AccessGrant) -> bytes:
        issued_at = int(self._clock.time())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "iat": issued_at,
            "nbf": issued_at,
            "exp": issued_at + self._lifetime(),
            "jti": jws.encode(self._token_bytes(_JTI_BYTES)).decode(),
        }
        try:
            claims |= claims_of(grant)
            if grant.anchor is not None:
                claims["anc"] = seal(
                    self._roots,
                    grant.anchor,
                    issuer=self._issuer,
                    audience=self._audience,
                    identity=grant.identity,
                    sid=grant.sid,
                    client=grant.client,
                    token_bytes=self._token_bytes,
                )
            return jws.dump_object(claims)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise NotIssued("claims") from error

    def _lifetime(self) -> int:
        chance = int.from_bytes(self._token_bytes(2)) / 2**16
        # Rounded up: a life of few seconds would else lose a third of itself to the jitter.
        return max(1, math.ceil(self._access_ttl * (1 - _JITTER * chance)))

    def _header(self, key: SigningKey) -> bytes:
        if key not in self._headers:
            header = {"typ": "at+jwt", "alg": key.algorithm, "kid": key.kid}
            self._headers = {key: jws.encode(jws.dump_object(header))}
        return self._headers[key]

    def _check(self, token: bytes) -> VerifiedToken:
        """Verify what is about to leave: a broken key set must not reach a client."""
        try:
            return self._verifier.verify(token)
        except TokenRejected as error:
            if error.reason in _KEY_FAULTS:
                raise KeysUnavailable("the signing key's own tokens do not verify") from error
            raise NotIssued("claims") from error
