"""Examine a deployment: what works, what is odd, what must be mended before users notice."""

import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal

from crossfade.errors import ConfigurationError, CrossfadeError, StoreUnavailable
from crossfade.keys.ring import KeyState
from crossfade.rollout.state import Phase
from crossfade.settings import Secrets, Settings
from crossfade.stores.engine import Database
from crossfade.stores.instances import InstanceStore
from crossfade.stores.keys import KeyStore
from crossfade.stores.rollout import RolloutStore
from crossfade_migrator.database import missing_file

Level = Literal["ok", "warning", "fault"]

CLOCK_NOTICE = 1.0
"""Seconds between two clocks from which on it is worth a look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check saw. `mend` says what to do, empty where all is well."""

    check: str
    level: Level
    text: str
    mend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What to examine.

    Attributes:
        settings_path: None for the usual places.
        app: `module:attribute` of the application, to look at its middleware and routes.
        cookie: the value of one live legacy cookie, for the reader to try.
    """

    settings_path: str | None = None
    app: str | None = None
    cookie: str | None = field(default=None, repr=False)


async def examine(
    examination: Examination, *, time: Callable[[], float] = time.time
) -> AsyncGenerator[Finding, None]:
    """Yield findings as the checks end; a check that cannot run is a finding, never an error."""
    try:
        settings = Settings.load(examination.settings_path)
    except ConfigurationError as error:
        yield Finding(check="settings", level="fault", text=str(error), mend="see the text")
        return
    yield Finding(check="settings", level="ok", text=f"{settings.audience} at {settings.issuer}")
    secrets = None
    try:
        secrets = settings.secrets()
        yield Finding(check="secrets", level="ok", text="root and wrapping secret are there")
    except ConfigurationError as error:
        yield Finding(check="secrets", level="fault", text=str(error), mend="see the text")
    for finding in _cookies(settings):
        yield finding
    async with aclosing(_database(settings, secrets, time)) as findings:
        async for finding in findings:
            yield finding
    if examination.app is not None:
        from crossfade_migrator.application import examine_application

        for finding in examine_application(examination.app, settings):
            yield finding
    if examination.cookie is not None:
        yield await _reader(settings, examination.cookie, time())


def _cookies(settings: Settings) -> list[Finding]:
    https = settings.issuer.startswith("https://")
    legacy, ours = settings.legacy, settings.cookies
    found = []
    if https and not ours.secure:
        text = "our cookies go without Secure and without the __Host- prefix"
        found.append(_fault("cookies", text, "set `cookies.secure = true`"))
    if not https and ours.secure:
        text = "browsers will not store our Secure cookies from plain HTTP"
        found.append(_warning("cookies", text, "set `cookies.secure = false`, on localhost only"))
    if https and not legacy.secure:
        text = f"the legacy cookie {legacy.cookie!r} goes without Secure"
        found.append(_warning("cookies", text, "let the application set it, then `legacy.secure`"))
    if legacy.same_site == "none":
        text = "the legacy cookie is SameSite=none: other sites can send it"
        found.append(_warning("cookies", text, "use lax unless the application is embedded"))
    names = f"{legacy.cookie}, {ours.access}, {ours.refresh}"
    return found or [Finding(check="cookies", level="ok", text=names)]


async def _database(
    settings: Settings, secrets: Secrets | None, time: Callable[[], float]
) -> AsyncGenerator[Finding, None]:
    try:
        url = settings.resolve_url(settings.database.url)
        if file := missing_file(url):
            yield _fault("database", f"there is no {file}", "run `crossfade db upgrade`")
            return
        database = Database(url, timeout=settings.database.timeout)
    except ConfigurationError as error:
        yield _fault("database", str(error), "see `database.url`")
        return
    try:
        await database.check_schema()
        yield Finding(check="database", level="ok", text=f"{database.dialect}, schema up to date")
        yield await _clock(database, settings, time)
        for finding in await _rollout(database, settings):
            yield finding
        if secrets is not None:
            yield await _keys(database, secrets)
        for finding in await _instances(database, settings):
            yield finding
    except ConfigurationError as error:
        yield _fault("database", str(error), "run `crossfade db upgrade`")
    except StoreUnavailable as error:
        yield _fault("database", str(error), "is it up, and is `database.url` right?")
    finally:
        await database.close()


async def _clock(database: Database, settings: Settings, time: Callable[[], float]) -> Finding:
    before = time()
    there = await database.time()
    offset = there - (before + time()) / 2
    text = f"the database's clock is {offset:+.1f} s from this machine's"
    if abs(offset) > settings.tokens.leeway:
        return _fault("clock", text, "set the clocks: NTP")
    if abs(offset) > CLOCK_NOTICE:
        return _warning("clock", text, "set the clocks: NTP")
    return Finding(check="clock", level="ok", text=text)


async def _rollout(database: Database, settings: Settings) -> list[Finding]:
    store = RolloutStore(database)
    head = await store.head()
    found = [_fault("history", text, "see `crossfade history`") for text in await store.verify()]
    late = head.document.phase in {Phase.DRAIN, Phase.TOKENS}
    if late and not settings.legacy.logout_paths:
        text = "log-outs that leave no sign cannot be seen in this phase"
        found.append(_warning("rollout", text, "name them in `legacy.logout_paths`"))
    text = f"revision {head.number}, phase {head.document.phase}, {head.document.status}"
    return found or [Finding(check="rollout", level="ok", text=text)]


async def _keys(database: Database, secrets: Secrets) -> Finding:
    store = KeyStore(database, secrets.wrapping)
    active = [row for row in await store.list() if row.state is KeyState.ACTIVE]
    if not active:
        return _fault("keys", "there is no active signing key", "run `crossfade keys rotate`")
    try:
        signing = (await store.load()).signing
    except CrossfadeError:
        text = f"the wrapping secret of key {active[0].kid[:8]} is gone: nothing can be signed"
        return _fault("keys", text, "restore the secret, or run `crossfade keys rotate`")
    return Finding(check="keys", level="ok", text=f"{signing.algorithm} {signing.kid[:8]} signs")


async def _instances(database: Database, settings: Settings) -> list[Finding]:
    rows = await InstanceStore(database).live(settings.rollout.instance_ttl)
    head = await RolloutStore(database).head()
    if not rows:
        text = "no process of the application reports"
        return [_warning("instances", text, "start it with CrossfadeMiddleware around it")]
    versions = sorted({row.version for row in rows})
    found = []
    for row in rows:
        if row.is_vanished:
            found.append(_warning("instances", f"{row.name} is silent", "did it crash?"))
        elif not row.has_acked(head):
            text = f"{row.name} runs revision {row.revision}, the head is {head.number}"
            found.append(_warning("instances", text, "wait; or look at its log"))
        if abs(row.clock_offset) > CLOCK_NOTICE:
            text = f"{row.name}: its clock is {row.clock_offset:+.1f} s off"
            found.append(_warning("instances", text, "set the clocks: NTP"))
        if row.canary is not None and not row.canary.ok:
            text = f"{row.name} cannot verify the canary token: {row.canary.why}"
            found.append(_fault("instances", text, "compare its keys: `crossfade keys list`"))
    if len(versions) > 1:
        text = f"several versions run: {', '.join(versions)}"
        found.append(_warning("instances", text, "finish the deployment before you advance"))
    text = f"{len(rows)} at revision {head.number}, version {versions[0]}"
    return found or [Finding(check="instances", level="ok", text=text)]


async def _reader(settings: Settings, value: str, now: float) -> Finding:
    from crossfade.legacy.registry import build

    try:
        reader = build(settings, os.environ)
    except CrossfadeError as error:
        return _fault("reader", str(error), "see the [legacy] settings")
    try:
        presented = reader.pick({reader.cookie.name.encode(): [value.encode("latin-1", "replace")]})
        if presented is None:
            text = "the reader sees no session id in this cookie"
            return _fault("reader", text, "give the cookie's value alone, without its name")
        session = await reader.read(presented, now)
    except CrossfadeError as error:
        return _fault("reader", str(error), "is the session store up?")
    finally:
        await reader.close()
    text = f"{reader.reader} says {session.state}" + (f": {session.why}" if session.why else "")
    if session.identity is None:
        mend = "is it live and logged in? then see [legacy] and [legacy.identity]"
        return _warning("reader", text, mend)
    text += f", user {session.identity.subject}"
    return Finding(check="reader", level="ok", text=text)


def _fault(check: str, text: str, mend: str) -> Finding:
    return Finding(check=check, level="fault", text=text, mend=mend)


def _warning(check: str, text: str, mend: str) -> Finding:
    return Finding(check=check, level="warning", text=text, mend=mend)
