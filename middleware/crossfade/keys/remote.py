"""The keys of an issuer elsewhere, read from its JWKS and kept (RFC 7517 5).

The last good set is kept when the issuer does not answer: its outage must not become ours. However
many requests ask, one fetch runs at a time, and tokens with an unknown `kid` cause one a cooldown,
so that whoever invents names cannot make us hammer the issuer.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

import httpx

from crossfade.clock import Clock, SystemClock
from crossfade.errors import ConfigurationError, KeysUnavailable
from crossfade.keys.ring import KeyRing, VerificationKey

MAXIMUM_BYTES = 262_144
"""Of a key set: more is not one."""
_log = logging.getLogger(__name__)


class RemoteKeys:
    """A key ring that follows a JWKS.

    Args:
        url: the JWKS; redirects are not followed, for they would hand the choice of keys on.
        refresh: seconds after which a request makes the set be read anew, in the background.
        cooldown: least seconds between fetches that an unknown `kid` or a failure causes.
        timeout: seconds that one fetch may take.
        client: an HTTP client of your own; it is not closed.
        clock: measures ages.

    Raises:
        ConfigurationError: the URL is not http or https.
    """

    def __init__(
        self,
        url: str,
        *,
        refresh: float = 300.0,
        cooldown: float = 10.0,
        timeout: float = 5.0,
        client: httpx.AsyncClient | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not url.startswith(("https://", "http://")):
            raise ConfigurationError("the JWKS URL must begin with https://")
        self._url = url
        self._refresh = refresh
        self._cooldown = cooldown
        self._timeout = timeout
        self._own = client is None
        self._client = client or httpx.AsyncClient()
        self._clock = clock or SystemClock()
        self._ring = KeyRing.empty()
        self._loaded_at: float | None = None
        self._tried_at: float | None = None
        self._fetching: asyncio.Task[None] | None = None

    @property
    def ring(self) -> KeyRing:
        """The last good set; empty before the first."""
        return self._ring

    async def ready(self) -> None:
        """See to it that there is a set. Waits for the first one only.

        Raises:
            KeysUnavailable: none could be fetched yet.
        """
        if self._ring and not self._is_due(self._loaded_at, self._refresh):
            return
        if self._is_due(self._tried_at, self._cooldown):
            self._begin()
        if not self._ring:
            await self._fetched()
            if not self._ring:
                raise KeysUnavailable("the key set could not be fetched")

    async def reload(self, asked_at: float) -> bool:
        """Read the set anew for a `kid` that was asked for then and is not in it.

        Say whether the set is as new as the question. If not, nothing is known about that `kid`: it
        is too soon after the last fetch, or the fetch failed.
        """
        if not self._is_newer(asked_at):
            if self._is_due(self._tried_at, self._cooldown):
                self._begin()
            await self._fetched()
        return self._is_newer(asked_at)

    async def aclose(self) -> None:
        """Stop fetching and let go of the connections."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)
        if self._own:
            await self._client.aclose()

    def _is_due(self, since: float | None, interval: float) -> bool:
        return since is None or self._clock.monotonic() - since >= interval

    def _is_newer(self, moment: float) -> bool:
        return self._loaded_at is not None and self._loaded_at >= moment

    def _begin(self) -> None:
        if self._fetching is None:
            self._tried_at = self._clock.monotonic()
            self._fetching = asyncio.create_task(self._fetch())

    async def _fetched(self) -> None:
        """Wait for the fetch that runs; a waiter that gives up leaves it to the others."""
        if self._fetching is not None:
            await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                ring = key_set(json.loads(await self._body()))
        except (httpx.HTTPError, TimeoutError, ValueError, RecursionError) as error:
            _log.warning("the key set %s was not read: %s", self._url, type(error).__name__)
        else:
            # The same object as long as nothing changed: verified tokens are kept with it.
            self._ring = self._ring if ring == self._ring else ring
            self._loaded_at = self._clock.monotonic()
        finally:
            self._fetching = None

    async def _body(self) -> bytes:
        # Not compressed: a small reply must not grow past the cap in one step.
        headers = {"Accept": "application/jwk-set+json", "Accept-Encoding": "identity"}
        body = bytearray()
        async with self._client.stream(
            "GET", self._url, headers=headers, follow_redirects=False, timeout=self._timeout
        ) as response:
            if response.status_code != httpx.codes.OK:
                raise ValueError("not answered with 200")
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAXIMUM_BYTES:
                    raise ValueError("too large for a key set")
        return bytes(body)


def key_set(document: object) -> KeyRing:
    """Return the keys of a JWK Set that we can use; others are left out (RFC 7517 5).

    Raises:
        ValueError: not a key set, or not one key of use in it.
    """
    entries = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(entries, list):
        raise ValueError("not a key set")  # noqa: TRY004 - one error for a bad document
    known = [key for entry in entries if (key := _usable(entry)) is not None]
    if not known:
        raise ValueError("a key set without a key of use")
    return KeyRing(known, None)


def _usable(entry: Any) -> VerificationKey | None:
    try:
        return VerificationKey.from_jwk(entry) if isinstance(entry, Mapping) else None
    except ValueError:
        return None
