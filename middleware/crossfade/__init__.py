"""Crossfade: move a live web application from server-side sessions to JWTs, and back.

Everything public is here. Names are loaded when first used, so that a service that only verifies
tokens needs none of the libraries of the middleware.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from crossfade.client import TokenAuth as TokenAuth
    from crossfade.errors import ConfigurationError as ConfigurationError
    from crossfade.errors import CredentialRejected as CredentialRejected
    from crossfade.errors import CrossfadeError as CrossfadeError
    from crossfade.errors import KeysUnavailable as KeysUnavailable
    from crossfade.errors import Reason as Reason
    from crossfade.errors import StoreUnavailable as StoreUnavailable
    from crossfade.errors import TokenRejected as TokenRejected
    from crossfade.handle import login as login
    from crossfade.legacy.base import LegacySession as LegacySession
    from crossfade.legacy.base import LegacySessions as LegacySessions
    from crossfade.legacy.base import SessionState as SessionState
    from crossfade.metrics import MetricsApp as MetricsApp
    from crossfade.middleware import CrossfadeMiddleware as CrossfadeMiddleware
    from crossfade.principal import Identity as Identity
    from crossfade.principal import Principal as Principal
    from crossfade.settings import Settings as Settings
    from crossfade.tokens.claims import VerifiedToken as VerifiedToken
    from crossfade.verifier import TokenMiddleware as TokenMiddleware
    from crossfade.verifier import Verifier as Verifier

_HOMES = {
    "ConfigurationError": "errors",
    "CredentialRejected": "errors",
    "CrossfadeError": "errors",
    "CrossfadeMiddleware": "middleware",
    "Identity": "principal",
    "KeysUnavailable": "errors",
    "LegacySession": "legacy.base",
    "LegacySessions": "legacy.base",
    "MetricsApp": "metrics",
    "Principal": "principal",
    "Reason": "errors",
    "SessionState": "legacy.base",
    "Settings": "settings",
    "StoreUnavailable": "errors",
    "TokenAuth": "client",
    "TokenMiddleware": "verifier",
    "TokenRejected": "errors",
    "VerifiedToken": "tokens.claims",
    "login": "handle",
    "Verifier": "verifier",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - a list of the names above; a test holds it


def __getattr__(name: str) -> Any:
    """Load a public name from its home (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'crossfade' has no attribute {name!r}")
    try:
        value = getattr(import_module(f"crossfade.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("crossfade"):
            raise
        raise ModuleNotFoundError(
            f"crossfade.{name} needs {error.name}: pip install 'crossfade[server]'", name=error.name
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return [*__all__, "__version__"]
