"""Encryption of small values at rest: AES-256-GCM under a key derived from the root secrets."""

import os
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crossfade.keys.roots import RootSecrets

NONCE_BYTES = 12


def seal(
    roots: RootSecrets,
    label: str,
    plaintext: bytes,
    bound_to: bytes,
    token_bytes: Callable[[int], bytes] = os.urandom,
) -> bytes:
    """Encrypt under the active root: kv, nonce, ciphertext. Unsealing needs `bound_to` again."""
    nonce = token_bytes(NONCE_BYTES)
    cipher = AESGCM(roots.derive(roots.active, label))
    return bytes((roots.active,)) + nonce + cipher.encrypt(nonce, plaintext, bound_to)


def unseal(roots: RootSecrets, label: str, sealed: bytes, bound_to: bytes) -> bytes | None:
    """Decrypt what `seal` made; None if its root is gone or anything about it is wrong."""
    kv, nonce, ciphertext = sealed[:1], sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
    if not kv or kv[0] not in roots:
        return None
    try:
        return AESGCM(roots.derive(kv[0], label)).decrypt(nonce, ciphertext, bound_to)
    except (InvalidTag, ValueError):
        return None
