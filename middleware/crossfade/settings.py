"""The settings: one TOML file, secrets apart, everything checked before the first request.

Unknown keys are errors, and every error names the key and the mend. Durations are written `10m`,
`30s`, `500ms`, `14d`. Secrets come from the environment (`CROSSFADE_ROOT_SECRET`,
`CROSSFADE_WRAPPING_SECRET`) or from a file of mode 600 that `secrets_file` names; never from the
settings themselves.
"""

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from crossfade.errors import ConfigurationError
from crossfade.keys.roots import RootSecrets

CONFIG_VARIABLE = "CROSSFADE_CONFIG"
ROOT_VARIABLE = "CROSSFADE_ROOT_SECRET"
WRAPPING_VARIABLE = "CROSSFADE_WRAPPING_SECRET"
DEFAULT_PATH = Path("crossfade.toml")

ClientKind = Literal["web", "mobile", "machine"]
CLIENT_KINDS: tuple[ClientKind, ...] = ("web", "mobile", "machine")

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")


class Seconds(float):
    """A duration in seconds, written in settings with its unit: `10m`."""

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read `10m` or `1.5s`. Raises ValueError with the accepted forms."""
        match = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError('write a duration with its unit: "500ms", "30s", "10m", "12h", "14d"')
        return cls(float(match[1]) * _UNITS[match[2]])

    def __str__(self) -> str:
        """Write it as settings do, in the largest unit that divides it."""
        for unit in ("w", "d", "h", "m", "s"):
            if self >= _UNITS[unit] and float(self) % _UNITS[unit] == 0:
                return f"{float(self) / _UNITS[unit]:.0f}{unit}"
        return f"{float(self) * 1000:g}ms"


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    def __repr__(self) -> str:
        """Show the kind alone: a database URL may hold a password."""
        return f"<{type(self).__name__}>"


class DatabaseSettings(_Section, frozen=True, kw_only=True):
    """Crossfade's own database: the truth about logins, keys and the rollout.

    url: sqlite:///FILE for one machine, postgresql://… for many.
    timeout: what one transaction may take before the caller answers 503.
    """

    url: str
    timeout: Seconds = Seconds(2)


class IdentitySettings(_Section, frozen=True, kw_only=True):
    """Where the reader finds who a session belongs to: dotted paths into the session's data.

    user: the user id; without a value there the session is anonymous.
    tenant, actor, auth_time: further parts, if the application has them.
    partial: paths that, when set, mark a log-in that is not finished.
    user_form: how the application stores the id, for sessions that are made anew: an application
    that
        looks its users up by number must not find text.
    """

    user: str = "user_id"
    user_form: Literal["text", "integer"] = "text"
    tenant: str | None = None
    actor: str | None = None
    auth_time: str | None = None
    partial: tuple[str, ...] = ()


class SqlTableSettings(_Section, frozen=True, kw_only=True):
    """A table of server-side sessions that the application keeps itself.

    url: the application's database.
    table, key, data, user, created, seen, expires: names of the table and its columns; `user`,
        `created`, `seen` and `expires` only where the table has them.
    key_form: `plain`, or `sha256` where the table holds the hex digest of the cookie.
    times: how the columns hold time: `unix` seconds, `iso` text, or the database's `timestamp`.
    idle: how long after `seen` a session ends; absolute: how long after `created`.
    twin: of several cookies of that name, which one the application reads.
    """

    url: str
    table: str = "sessions"
    key: str = "id"
    data: str = "data"
    user: str | None = None
    created: str | None = None
    seen: str | None = None
    expires: str | None = None
    key_form: Literal["plain", "sha256"] = "plain"
    times: Literal["unix", "iso", "timestamp"] = "unix"
    idle: Seconds | None = None
    absolute: Seconds | None = None
    twin: Literal["first", "last"] = "last"
    timeout: Seconds = Seconds(0.5)


class StarletteSettings(_Section, frozen=True, kw_only=True):
    """Starlette's and FastAPI's SessionMiddleware: the session is the signed cookie.

    secret_variable: the environment variable that holds the application's `secret_key`.
    mark_logins: put a random `_cf` into sessions at log-in, so that a log-out reaches old copies.
    endless: the application passes `max_age=None`, so that its cookies never expire. Otherwise
        `legacy.max_age` holds, or Starlette's own 14 days.
    """

    secret_variable: str = "SESSION_SECRET"
    mark_logins: bool = True
    endless: bool = False


class LegacySettings(_Section, frozen=True, kw_only=True):
    """The application's present sessions.

    framework: which reader; its own section must stand beside it.
    cookie, path, domain, secure, same_site, max_age: how the framework sets its cookie.
    logout_paths: requests whose success is a log-out even though the reply shows none.
    """

    framework: Literal["sql", "starlette"]
    cookie: str = "session"
    path: str = "/"
    domain: str | None = None
    secure: bool = True
    same_site: Literal["lax", "strict", "none"] | None = "lax"
    max_age: Seconds | None = None
    logout_paths: tuple[str, ...] = ()
    identity: IdentitySettings = IdentitySettings()
    sql: SqlTableSettings | None = None
    starlette: StarletteSettings | None = None


class TokenSettings(_Section, frozen=True, kw_only=True):
    """Lifetimes and kinds of what we issue.

    access_ttl: life of an access token. leeway: clock difference forgiven.
    refresh_idle: a refresh token unused for that long ends. refresh_absolute: a login ends then
        whatever happens; without it, when the legacy session would have.
    login_lifetime: the end of a login whose legacy session has no absolute deadline.
    replay_window: how long a repeated refresh gets the same answer; default a tenth of access_ttl,
        at least 30 s and at most 60 s.
    algorithm: of new signing keys.
    bridge: `off` once the application no longer reads its own sessions.
    claims: claim name -> dotted path into the session, an allow-list.
    max_staleness: after that long without news about revocations, tokens count as unknown.
    """

    access_ttl: Seconds = Seconds(600)
    leeway: Seconds = Seconds(30)
    refresh_idle: Seconds = Seconds(14 * 86400)
    refresh_absolute: Seconds | None = None
    login_lifetime: Seconds = Seconds(30 * 86400)
    replay_window: Seconds | None = None
    algorithm: Literal["ES256", "EdDSA", "RS256"] = "ES256"
    bridge: Literal["on", "off"] = "on"
    claims: dict[str, str] = {}
    max_staleness: Seconds = Seconds(60)

    @property
    def window(self) -> float:
        """Seconds for which a repeated refresh gets the same answer."""
        return self.replay_window or min(60.0, max(30.0, self.access_ttl / 10))


class CookieSettings(_Section, frozen=True, kw_only=True):
    """Our own cookies. `secure = false` drops the `__Host-` prefix; for plain HTTP on localhost."""

    secure: bool = True
    same_site: Literal["lax", "strict"] = "lax"

    @property
    def access(self) -> str:
        """Name of the access cookie."""
        return "__Host-crossfade-access" if self.secure else "crossfade-access"

    @property
    def refresh(self) -> str:
        """Name of the refresh cookie."""
        return "__Host-crossfade-refresh" if self.secure else "crossfade-refresh"


class EndpointSettings(_Section, frozen=True, kw_only=True):
    """Where the middleware answers itself, on exact paths under `prefix`."""

    prefix: str = "/auth"


class CsrfSettings(_Section, frozen=True, kw_only=True):
    """Cross-site request forgery.

    session: `report` leaves session users to the application's own rules; `enforce` adds ours.
    exempt: exact paths. trusted_origins: other origins that may send unsafe requests.
    """

    session: Literal["report", "enforce"] = "report"
    exempt: tuple[str, ...] = ()
    trusted_origins: tuple[str, ...] = ()


class ClientRule(_Section, frozen=True, kw_only=True):
    """One rule of the client classifier: the first whose given conditions all hold decides.

    path: a prefix of the path. header: name of a request header. matches: its value's prefix.
    """

    kind: ClientKind
    path: str | None = None
    header: str | None = None
    matches: str | None = None


class RouteRule(_Section, frozen=True, kw_only=True):
    """A class of routes by path prefix.

    login_required: an unknown session is answered 503 here, where it would be anonymous elsewhere.
    no_renew: replies that cannot carry cookies; tokens are not renewed on them.
    """

    path: str
    login_required: bool = False
    no_renew: bool = False


class RolloutSettings(_Section, frozen=True, kw_only=True):
    """How instances follow the rollout.

    poll: how often an instance asks for news. heartbeat: how often it reports. instance_ttl: after
    that long without a report it counts as gone. min_instances: fewer live ones refuse an advance.
    canary: how often each instance verifies the canary token.
    upgrades_per_second: how many sessions an instance upgrades at most.
    """

    poll: Seconds = Seconds(0.5)
    heartbeat: Seconds = Seconds(5)
    instance_ttl: Seconds = Seconds(30)
    min_instances: int = 1
    canary: Seconds = Seconds(5)
    upgrades_per_second: float = 50.0


class RetentionSettings(_Section, frozen=True, kw_only=True):
    """How long rows are kept after they stopped to matter."""

    audit: Seconds = Seconds(400 * 86400)
    ended_logins: Seconds = Seconds(30 * 86400)
    devices: Seconds = Seconds(90 * 86400)


class Secrets:
    """The root ring, which derives, and the wrapping ring, which encrypts private keys at rest."""

    def __init__(self, root: RootSecrets, wrapping: RootSecrets) -> None:
        self.root = root
        self.wrapping = wrapping

    def __repr__(self) -> str:
        """Show nothing of them."""
        return "<Secrets>"


class Settings(_Section, frozen=True, kw_only=True):
    """All settings of one deployment. Load with `Settings.load`.

    issuer: `iss` of the tokens, the site's own https origin. audience: `aud`, a name for this
    application. secrets_file: a TOML file of mode 600 with `root` and `wrapping` lists.
    identity_conflict: what a bearer header beside another user's session does: `token` wins, or
    `reject` answers 400. application_schemes: Authorization schemes that the application checks
    itself, such as `basic`: beside them no user is set and no session upgraded. journal: a file
    for log-outs that wait for the database.
    """

    schema: Literal[1]
    issuer: str
    audience: str
    database: DatabaseSettings
    legacy: LegacySettings
    secrets_file: str | None = None
    tokens: TokenSettings = TokenSettings()
    cookies: CookieSettings = CookieSettings()
    endpoints: EndpointSettings = EndpointSettings()
    csrf: CsrfSettings = CsrfSettings()
    clients: tuple[ClientRule, ...] = ()
    routes: tuple[RouteRule, ...] = ()
    rollout: RolloutSettings = RolloutSettings()
    retention: RetentionSettings = RetentionSettings()
    identity_conflict: Literal["token", "reject"] = "token"
    application_schemes: tuple[str, ...] = ()
    journal: str = "crossfade.journal"
    base: Path = Path()
    """Folder of the file: relative paths in it start there. Set by `load`."""

    @classmethod
    def load(cls, path: str | Path | None = None) -> Self:
        """Read the file that is named, else `$CROSSFADE_CONFIG`, else `crossfade.toml`.

        Raises:
            ConfigurationError: not there, not TOML, an unknown key, a wrong value.
        """
        found = Path(path or os.environ.get(CONFIG_VARIABLE) or DEFAULT_PATH)
        try:
            document = tomllib.loads(found.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"there is no {found}: run `crossfade init`, or name a file with --config"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{found} cannot be read: {type(error).__name__}") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{found} is not valid TOML: {error}") from error
        try:
            return cls.from_mapping(document, base=found.resolve().parent)
        except ConfigurationError as error:
            raise ConfigurationError(f"{found}: {error}") from error

    @classmethod
    def from_mapping(cls, document: Mapping[str, Any], *, base: Path = Path()) -> Self:
        """Check settings given as a mapping of plain values. Raises ConfigurationError."""
        if "base" in document:
            raise ConfigurationError("unknown key `base`")
        try:
            settings = msgspec.convert({**document}, cls, dec_hook=_decode)
        except msgspec.ValidationError as error:
            raise ConfigurationError(_in_words(str(error))) from error
        settings = msgspec.structs.replace(settings, base=base)
        settings.check()
        return settings

    def check(self) -> None:
        """Hold settings against each other. Raises ConfigurationError naming the key."""
        for wrong, text in self._faults():
            if wrong:
                raise ConfigurationError(text)

    def secrets(self, environment: Mapping[str, str] = os.environ) -> Secrets:
        """Read the secrets from the environment, else from `secrets_file`.

        In the environment a ring is a comma-separated list, the active secret first.

        Raises:
            ConfigurationError: missing, too short, or a file that others may read.
        """
        rings: dict[str, list[str]] = {}
        if self.secrets_file is not None:
            rings = _secrets_file(self.base / self.secrets_file)
        for name, variable in (("root", ROOT_VARIABLE), ("wrapping", WRAPPING_VARIABLE)):
            if value := environment.get(variable):
                rings[name] = [part.strip() for part in value.split(",")]
        if not rings.get("root"):
            raise ConfigurationError(
                f"no root secret: set {ROOT_VARIABLE}, or `secrets_file` as `crossfade init` does"
            )
        if not rings.get("wrapping"):
            raise ConfigurationError(
                f"no wrapping secret: set {WRAPPING_VARIABLE}, or `wrapping` in the secrets file"
            )
        if set(rings["root"]) & set(rings["wrapping"]):
            raise ConfigurationError("root and wrapping secret are the same: use two")
        return Secrets(*(RootSecrets([s.encode() for s in rings[n]]) for n in ("root", "wrapping")))

    def resolve_url(self, url: str) -> str:
        """Return a database URL ready for use.

        `env:NAME` is read from the environment, which keeps a password out of the file; the
        relative path of a SQLite file starts at the settings' folder. Raises ConfigurationError.
        """
        if url.startswith("env:"):
            variable = url.removeprefix("env:")
            if not (url := os.environ.get(variable, "")):
                raise ConfigurationError(
                    f"the environment variable {variable} holds no database URL"
                )
        head, mark, path = url.partition(":///")
        if not mark or not head.startswith("sqlite") or path.startswith("/"):
            return url
        return f"{head}:///{(self.base / path).resolve()}"

    def _faults(self) -> list[tuple[bool, str]]:
        tokens, rollout, legacy = self.tokens, self.rollout, self.legacy
        prefix = self.endpoints.prefix
        section = getattr(legacy, legacy.framework)
        return [
            (
                not self.issuer.startswith(("https://", "http://")),
                "`issuer` must be the origin of the site: https://shop.example",
            ),
            (self.issuer.endswith("/"), "`issuer` must not end in a slash"),
            (not self.audience, "`audience` is empty: give this application a name"),
            (
                section is None,
                f"`legacy.framework` is {legacy.framework!r}: add [legacy.{legacy.framework}]",
            ),
            (
                not prefix.startswith("/") or prefix.endswith("/"),
                "`endpoints.prefix` must start with a slash and not end in one: /auth",
            ),
            (tokens.access_ttl <= 0, "`tokens.access_ttl` must be longer than nothing"),
            (
                tokens.access_ttl > 3600,
                "`tokens.access_ttl` is over an hour: too long for what cannot be asked about",
            ),
            (
                tokens.refresh_idle <= tokens.access_ttl,
                "`tokens.refresh_idle` must be longer than `tokens.access_ttl`",
            ),
            (
                rollout.instance_ttl < 2 * rollout.heartbeat,
                "`rollout.instance_ttl` must be at least twice `rollout.heartbeat`",
            ),
            (
                tokens.max_staleness < 4 * rollout.poll,
                "`tokens.max_staleness` must be at least four times `rollout.poll`",
            ),
            (rollout.min_instances < 0, "`rollout.min_instances` must not be negative"),
            (
                legacy.cookie in {self.cookies.access, self.cookies.refresh},
                "`legacy.cookie` has the name of one of our own cookies",
            ),
            (
                bool(personal := _PERSONAL & set(tokens.claims)),
                f"`tokens.claims` names personal data ({', '.join(sorted(personal))}): keep it out",
            ),
            (
                bool(reserved := _RESERVED & set(tokens.claims)),
                f"`tokens.claims` names reserved claims: {', '.join(sorted(reserved))}",
            ),
        ]


_PERSONAL = frozenset(
    {"email", "phone", "phone_number", "name", "given_name", "family_name", "address"}
)
_RESERVED = frozenset(
    {"iss", "aud", "sub", "sid", "jti", "client_id", "iat", "nbf", "exp", "auth_time", "anc", "act"}
    | {"amr", "scope", "tenant"}
)


def _decode(kind: type, value: object) -> object:
    if kind is Seconds:
        return Seconds.parse(value)
    if kind is Path:
        return Path(str(value))
    raise NotImplementedError(kind)


def _in_words(message: str) -> str:
    """Turn msgspec's `- at `$.tokens.x`` into the key as the file has it."""
    text, _, where = message.partition(" - at `$")
    key = where.rstrip("`").lstrip(".")
    if match := re.search(r"unknown field `([^`]+)`", text):
        return f"unknown key `{f'{key}.' if key else ''}{match[1]}`: check its spelling"
    if match := re.search(r"missing required field `([^`]+)`", text):
        return f"`{f'{key}.' if key else ''}{match[1]}` is missing"
    return f"`{key}`: {text[:1].lower()}{text[1:]}" if key else text


def _secrets_file(path: Path) -> dict[str, list[str]]:
    try:
        mode = path.stat().st_mode
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"the secrets file {path} cannot be read: {error.strerror}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        # The parser's own message would quote the line, and with it the secret.
        raise ConfigurationError(f"the secrets file {path} is not valid TOML") from None
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigurationError(f"others may read the secrets file: chmod 600 {path}")
    try:
        return msgspec.convert(document, dict[str, list[str]])
    except msgspec.ValidationError:
        raise ConfigurationError(
            f'the secrets file {path} must hold lists: root = ["…"], wrapping = ["…"]'
        ) from None
