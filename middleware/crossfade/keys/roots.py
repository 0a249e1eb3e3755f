"""The root secrets, and everything that is derived from them.

Roots are a list: the first one makes new artefacts, all of them check old ones. Each artefact
carries `kv`, one byte that names its root by fingerprint, so that the list may be re-ordered.
"""

import hashlib
import hmac
from collections.abc import Sequence
from functools import lru_cache

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from crossfade.errors import ConfigurationError

MINIMUM_BYTES = 32


def framed(*parts: bytes) -> bytes:
    """Join parts so that no two lists of parts give the same bytes: a 32-bit length before each."""
    return b"".join(len(part).to_bytes(4) + part for part in parts)


def _hkdf(secret: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret)


class RootSecrets:
    """An ordered ring of root secrets; the first is active.

    Raises:
        ConfigurationError: none given, one shorter than 32 bytes, or two that share a fingerprint.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets:
            raise ConfigurationError(
                "no root secret: set CROSSFADE_ROOT_SECRET or run `crossfade init`"
            )
        if any(len(secret) < MINIMUM_BYTES for secret in secrets):
            raise ConfigurationError(f"a root secret is shorter than {MINIMUM_BYTES} bytes")
        versions = [_hkdf(secret, b"crossfade/kv/1")[0] for secret in secrets]
        if len(set(versions)) != len(versions):
            raise ConfigurationError("two root secrets share a fingerprint: generate another one")
        self._secrets = dict(zip(versions, secrets, strict=True))
        self.active = versions[0]
        self.derive = lru_cache(maxsize=4096)(self._derive)

    def __contains__(self, kv: int) -> bool:
        """Say whether the root named `kv` is still in the ring."""
        return kv in self._secrets

    def __repr__(self) -> str:
        """Show how many secrets there are, never one of them."""
        return f"<RootSecrets: {len(self._secrets)}>"

    @property
    def versions(self) -> tuple[int, ...]:
        """The `kv` of each root, the active one first."""
        return tuple(self._secrets)

    def mac(self, kv: int, label: str, *parts: bytes) -> bytes:
        """Return HMAC-SHA256 of the framed parts under the key for `label`: 32 bytes.

        Raises:
            KeyError: the root `kv` is no longer in the ring.
        """
        return hmac.digest(self.derive(kv, label), framed(*parts), hashlib.sha256)

    def _derive(self, kv: int, label: str, context: bytes = b"") -> bytes:
        """Return 32 bytes for one purpose (HKDF-SHA256, RFC 5869, info `crossfade/<label>/1`)."""
        return _hkdf(self._secrets[kv], b"crossfade/" + label.encode() + b"/1" + context)
