"""Verify an access token, strictly and without I/O (RFC 9068 4, RFC 8725; ADR 0009).

The order is the defence: what is cheap and structural comes before the signature, what is parsed
before it is capped, and the payload is looked at only once it is ours.
"""

from collections.abc import Callable
from typing import Any

from crossfade.clock import Clock
from crossfade.errors import KeysUnavailable, Reason, TokenRejected
from crossfade.keys.ring import KeyRing, VerificationKey
from crossfade.keys.roots import RootSecrets
from crossfade.principal import Identity
from crossfade.tokens import jws
from crossfade.tokens.anchor import AnchorHint, unseal
from crossfade.tokens.claims import (
    VerifiedToken,
    check_claims,
    client_kind,
    identity_of,
    read_claims,
    sid_of,
)

BEARER_CAP = 8192
"""Bytes of a token in an Authorization header."""
COOKIE_CAP = 4096
"""Bytes of a token in a cookie."""
_TYPES = frozenset({"at+jwt", "application/at+jwt"})
# Members that move the key, the reading or the meaning of a token into the sender's hands.
_FORBIDDEN = frozenset({"crit", "b64", "zip", "enc", "cty", "jku", "jwk"})
_HEADERS = 64


class TokenCache:
    """Verified tokens by their whole text, in two generations: bounded, and free of book-keeping.

    Args:
        entries: how many tokens one generation holds; at most twice as many are kept.
    """

    __slots__ = ("_entries", "_old", "_young")

    def __init__(self, entries: int = 10_000) -> None:
        self._entries = entries
        self._young: dict[bytes, VerifiedToken] = {}
        self._old: dict[bytes, VerifiedToken] = {}

    def __len__(self) -> int:
        """Count the tokens held."""
        return len(self._young.keys() | self._old.keys())

    def get(self, token: bytes) -> VerifiedToken | None:
        """Return what that very text proved, or None."""
        found = self._young.get(token)
        if found is None and (found := self._old.get(token)) is not None:
            self.put(token, found)
        return found

    def put(self, token: bytes, verified: VerifiedToken) -> None:
        """Keep a token; when a generation is full the one before it goes."""
        if len(self._young) >= self._entries:
            self._old, self._young = self._young, {}
        self._young[token] = verified

    def forget(self, token: bytes) -> None:
        """Drop one token, and the anchor's key with it; absent is fine."""
        self._young.pop(token, None)
        self._old.pop(token, None)

    def clear(self) -> None:
        """Drop all."""
        self._young, self._old = {}, {}


class TokenVerifier:
    """Verifies the access tokens of one issuer for one audience.

    Whether the login was revoked and whether the token has expired is the caller's to ask, at every
    use: an expired token that is otherwise good is returned.

    Args:
        issuer: `iss`, exactly.
        audience: `aud`, exactly, or a member of it.
        keys: gives the ring of the moment; it hands out the same object until something changes.
        clock: for `nbf` and `iat`.
        leeway: seconds of clock difference forgiven.
        roots: opens the anchor claim; None leaves anchors alone, as other services do.
        cache: what remembers verified tokens.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        keys: Callable[[], KeyRing],
        clock: Clock,
        leeway: float = 30.0,
        roots: RootSecrets | None = None,
        cache: TokenCache | None = None,
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = keys
        self._clock = clock
        self._leeway = leeway
        self._roots = roots
        self._cache = TokenCache() if cache is None else cache
        self._ring = KeyRing.empty()
        self._headers: dict[bytes, VerificationKey] = {}

    def verify(self, token: bytes, *, cap: int = BEARER_CAP) -> VerifiedToken:
        """Return what a token proves; the same object for the same text while the keys stay.

        Raises:
            TokenRejected: with its reason, on any bytes that are no token for us.
            KeysUnavailable: no key is loaded: our fault, not the token's.
        """
        if len(token) > cap:
            raise TokenRejected(Reason.TOO_LARGE, f"over {cap} bytes")
        ring = self._keys()
        if ring is not self._ring:
            self._follow(ring)
        return self._cache.get(token) or self._verify(token)

    def forget(self, token: bytes) -> None:
        """Drop what is remembered of a token: called when it turns out to be revoked."""
        self._cache.forget(token)

    def _follow(self, ring: KeyRing) -> None:
        """Begin anew with other keys: a retired one must not live on in what it once proved."""
        self._ring = ring
        self._cache.clear()
        self._headers.clear()

    def _verify(self, token: bytes) -> VerifiedToken:
        parts = token.split(b".", 3)
        if not token.isascii() or len(parts) != 3:
            raise TokenRejected(Reason.MALFORMED, "not three parts")
        header, payload, signature = parts
        key = self._headers.get(header) or self._key_of(header)
        data, proof = jws.decode(payload), jws.decode(signature)
        if not key.verify(token[: -len(signature) - 1], proof):
            raise TokenRejected(Reason.BAD_SIGNATURE)
        verified = self._read(jws.load_object(data), key.kid)
        self._cache.put(token, verified)
        return verified

    def _key_of(self, encoded: bytes) -> VerificationKey:
        if len(encoded) > jws.MAXIMUM_HEADER:
            raise TokenRejected(Reason.MALFORMED, "a header too long")
        header = jws.load_object(jws.decode(encoded))
        _check_header(header)
        if not self._ring:
            raise KeysUnavailable("no key to verify with was loaded")
        kid = header.get("kid")
        key = self._ring.get(kid) if isinstance(kid, str) else None
        if key is None:
            raise TokenRejected(Reason.UNKNOWN_KID)
        if header.get("alg") != key.algorithm:
            raise TokenRejected(Reason.BAD_ALGORITHM)
        # Ours are one text a key; whoever varies theirs must not fill the memory.
        if len(self._headers) < _HEADERS:
            self._headers[encoded] = key
        return key

    def _read(self, claims: dict[str, Any], kid: str) -> VerifiedToken:
        check_claims(claims)
        if claims["iss"] != self._issuer:
            raise TokenRejected(Reason.BAD_ISSUER)
        audience = claims["aud"]
        if audience != self._audience and (
            isinstance(audience, str) or self._audience not in audience
        ):
            raise TokenRejected(Reason.BAD_AUDIENCE)
        if max(claims["nbf"], claims["iat"]) > self._clock.time() + self._leeway:
            raise TokenRejected(Reason.NOT_YET_VALID)
        identity, sid = identity_of(claims), sid_of(claims)
        return read_claims(
            claims,
            kid=kid,
            identity=identity,
            sid=sid,
            anchor=self._anchor(claims, identity, sid),
        )

    def _anchor(self, claims: dict[str, Any], identity: Identity, sid: bytes) -> AnchorHint | None:
        # With a second audience the token goes to services that have no business with our sessions.
        if self._roots is None or "anc" not in claims or claims["aud"] != self._audience:
            return None
        return unseal(
            self._roots,
            claims["anc"],
            issuer=self._issuer,
            audience=self._audience,
            identity=identity,
            sid=sid,
            client=client_kind(claims["client_id"]),
        )


def _check_header(header: dict[str, Any]) -> None:
    kind = header.get("typ")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise TokenRejected(Reason.BAD_TYPE)
    if any(name in _FORBIDDEN or name.startswith("x5") for name in header):
        raise TokenRejected(Reason.FORBIDDEN_HEADER)
