"""What every verb works with: settings, database, stores, time, and who is asking."""

import getpass
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from crossfade.clock import Clock, SystemClock
from crossfade.errors import SchemaOutdated
from crossfade.settings import Secrets, Settings
from crossfade.stores.engine import Database
from crossfade.stores.gates import GateStore
from crossfade.stores.instances import InstanceStore
from crossfade.stores.rollout import RolloutStore

if TYPE_CHECKING:
    from crossfade.stores.audit import AuditStore
    from crossfade.stores.keys import KeyStore
    from crossfade.stores.logins import LoginStore


class Context:
    """One operator at one deployment.

    Args:
        actor: the name given with `--actor`; user and host always stand beside it.

    Attributes:
        actor: who is recorded: `ana (root@ops-1)`, or `root@ops-1` if no name was given.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        database: Database,
        clock: Clock | None = None,
        actor: str | None = None,
    ) -> None:
        self.settings = settings
        self.database = database
        self.clock = clock or SystemClock()
        self.operating_system_user = _user()
        self.host = socket.gethostname()
        somebody = f"{self.operating_system_user}@{self.host}"
        self.actor = f"{actor} ({somebody})" if actor else somebody
        self.rollout = RolloutStore(database)
        self.instances = InstanceStore(database)
        self.gates = GateStore(database)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings_path: str | Path | None = None,
        *,
        actor: str | None = None,
        clock: Clock | None = None,
        check_schema: bool = True,
    ) -> AsyncIterator[Self]:
        """Load the settings, open the database and close it at the end.

        Raises:
            ConfigurationError: settings are wrong; SchemaOutdated if tables are missing.
            StoreUnavailable: the database did not answer.
        """
        settings = Settings.load(settings_path)
        database = Database(
            settings.resolve_url(settings.database.url), timeout=settings.database.timeout
        )
        try:
            if check_schema:
                _refuse_to_create(database)
                await database.check_schema()
            yield cls(settings=settings, database=database, clock=clock, actor=actor)
        finally:
            await database.close()

    @cached_property
    def secrets(self) -> Secrets:
        """Return the secrets; read when first needed, most verbs need none.

        Raises ConfigurationError.
        """
        return self.settings.secrets()

    @cached_property
    def keys(self) -> "KeyStore":
        """Return the signing keys."""
        from crossfade.stores.keys import KeyStore

        return KeyStore(self.database, self.secrets.wrapping)

    @cached_property
    def logins(self) -> "LoginStore":
        """Return the logins."""
        from crossfade.stores.logins import LoginStore

        tokens = self.settings.tokens
        return LoginStore(
            self.database,
            self.secrets.root,
            window=tokens.window,
            access_ttl=tokens.access_ttl,
            leeway=tokens.leeway,
            refresh_idle=tokens.refresh_idle,
        )

    @cached_property
    def audit(self) -> "AuditStore":
        """Return the audit."""
        from crossfade.stores.audit import AuditStore

        return AuditStore(self.database, self.secrets.root)


def _refuse_to_create(database: Database) -> None:
    """Connecting to a SQLite file that is not there would leave an empty one behind."""
    if database.dialect == "sqlite" and not Path(database.engine.url.database or "").exists():
        raise SchemaOutdated("there is no database yet: run `crossfade db upgrade`")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return "unknown"
