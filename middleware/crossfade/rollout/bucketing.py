"""Put each subject into one of 100,000 buckets, the same on every machine and for ever (ADR 0011).

A share of n takes in the buckets below n, so raising it adds people and lowering it removes only
those between the two. Services in other languages check themselves against
`tests/golden/bucket_vectors.json`.
"""

from hashlib import sha256

BUCKETS = 100_000
"""The whole population; shares are 0..BUCKETS, so one step is 0.001 percent."""


def bucket(salt: str, client: str, subject: str) -> int:
    """Return the bucket of a subject, 0..99,999.

    It is the first 8 bytes, big-endian, of SHA-256 of `salt:client:subject` in UTF-8, modulo
    100,000.
    """
    # A subject from JSON may hold a lone surrogate, and no request may fail for it.
    digest = sha256(f"{salt}:{client}:{subject}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) % BUCKETS


def in_cohort(bucket: int, share: int) -> bool:
    """Say whether a bucket is within a share of 0..100,000."""
    return bucket < share
