"""The evidence that gates decide on: subjects seen, and subjects that failed, by client and arm.

People are counted, not requests: one client that retries in a loop is one failure. At most one
failure counts for each network, whichever arm it is in: an office with a fault of its own is one
too, and a network that fails in both arms must not weigh the same in a small arm as in a large one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import ColumnElement, Integer, Subquery, case, cast, func, null, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from crossfade.stores.engine import Database, insert_into, present
from crossfade.stores.schema import gate_subjects

Arm = Literal["token", "session"]
"""The cohort of a subject, whichever credential answered: a fallback must not hide a failure."""

_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One subject at one moment.

    Attributes:
        subject: a keyed hash of (tenant, subject), 16 bytes.
        network: a keyed hash of the /24 or /48 that the request came from, up to 8 bytes; empty if
            unknown, and then every failure counts.
        failed: by a fault of ours; never a wrong password, natural expiry or a client's doing.
    """

    client: str
    subject: bytes = field(repr=False)
    arm: Arm
    network: bytes = field(default=b"", repr=False)
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many subjects were seen in one arm, and how many first failures count."""

    subjects: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One stretch of time: its first failures among the subjects who had not failed before."""

    token_failures: int
    session_failures: int
    token_subjects: int
    session_subjects: int


class GateStore:
    """Notes and counts. All methods raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(self, stage_revision: int, batch: Iterable[Observation]) -> None:
        """Record observations of one stage; first sight and first failure of each subject stay."""
        rows = _merged(batch)
        if not rows:
            return
        async with self._database.write() as connection:
            for start in range(0, len(rows), _CHUNK):
                await _upsert(connection, stage_revision, rows[start : start + _CHUNK])

    async def counts(self, stage_revision: int) -> Mapping[tuple[str, str], Count]:
        """Return (client, arm) -> counts of the stage; a pair nobody was seen in is missing."""
        counted = _counted(stage_revision)
        seen = (
            select(gate_subjects.c.client, gate_subjects.c.arm, func.count())
            .where(gate_subjects.c.stage_revision == stage_revision)
            .group_by(gate_subjects.c.client, gate_subjects.c.arm)
        )
        failed = select(counted.c.client, counted.c.arm, func.count()).group_by(
            counted.c.client, counted.c.arm
        )
        async with self._database.read() as connection:
            subjects = {(c, arm): n for c, arm, n in await connection.execute(seen)}
            failures = {(c, arm): n for c, arm, n in await connection.execute(failed)}
        return {
            pair: Count(subjects=n, failures=failures.get(pair, 0)) for pair, n in subjects.items()
        }

    async def windows(
        self, stage_revision: int, *, since: float, width: float
    ) -> Mapping[str, list[Window]]:
        """Return client -> the windows in which somebody failed, in order, the unfinished one too.

        They are `width` seconds long and begin at `since`, POSIX seconds of the database's clock.
        """
        counted = _counted(stage_revision)
        async with self._database.read() as connection:

            async def tally(source: Any, at: ColumnElement[float]) -> _Tally:
                window = _window(connection, at, since, width).label("window")
                columns = (source.c.client, source.c.arm, window)
                query = select(*columns, func.count()).group_by(*columns)
                if source is gate_subjects:
                    query = query.where(source.c.stage_revision == stage_revision, at.is_not(None))
                return {(c, arm, int(w)): n for c, arm, w, n in await connection.execute(query)}

            seen = await tally(gate_subjects, gate_subjects.c.first_seen_at)
            failed = await tally(gate_subjects, gate_subjects.c.first_failure_at)
            first = await tally(counted, counted.c.first_failure_at)
        clients = {client for client, _, _ in seen}
        return {client: _windows(client, seen, failed, first) for client in sorted(clients)}


_Tally = dict[tuple[str, str, int], int]


def _merged(batch: Iterable[Observation]) -> list[Observation]:
    """Fold repeated subjects into one: PostgreSQL refuses to touch a row twice in a statement."""
    rows: dict[tuple[str, bytes], Observation] = {}
    for one in batch:
        known = rows.get((one.client, one.subject))
        if known is None or (one.failed and not known.failed):
            rows[one.client, one.subject] = one
    # In one order everywhere, so that two processes cannot wait for each other's rows.
    return [rows[key] for key in sorted(rows)]


async def _upsert(
    connection: AsyncConnection, stage_revision: int, rows: list[Observation]
) -> None:
    now = present(connection)
    statement = insert_into(connection, gate_subjects).values(
        [
            {
                "stage_revision": stage_revision,
                "client": one.client,
                "subject": one.subject,
                "arm": one.arm,
                "network": one.network,
                "first_seen_at": now,
                "first_failure_at": now if one.failed else null(),
            }
            for one in rows
        ]
    )
    new = statement.excluded
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["stage_revision", "client", "subject"],
            set_={"first_failure_at": new.first_failure_at, "network": new.network},
            where=gate_subjects.c.first_failure_at.is_(None) & new.first_failure_at.is_not(None),
        )
    )


def _counted(stage_revision: int) -> Subquery:
    """Select the failures that count: the first one of each network and client kind."""
    order = (
        func.row_number()
        .over(
            partition_by=(gate_subjects.c.client, gate_subjects.c.network),
            order_by=(gate_subjects.c.first_failure_at, gate_subjects.c.subject),
        )
        .label("place")
    )
    failures = (
        select(gate_subjects, order)
        .where(
            gate_subjects.c.stage_revision == stage_revision,
            gate_subjects.c.first_failure_at.is_not(None),
        )
        .subquery()
    )
    return select(failures).where(or_(failures.c.place == 1, failures.c.network == b"")).subquery()


def _window(
    connection: AsyncConnection, at: ColumnElement[float], since: float, width: float
) -> ColumnElement[Any]:
    """Return the number of the window that a time falls into."""
    elapsed = case((at > since, at - since), else_=0.0) / width
    # A cast to an integer cuts on SQLite and rounds on PostgreSQL; not every SQLite has floor.
    return cast(elapsed, Integer) if connection.dialect.name == "sqlite" else func.floor(elapsed)


def _windows(client: str, seen: _Tally, failed: _Tally, first: _Tally) -> list[Window]:
    """Run through time and keep how many subjects of each arm could still fail."""
    at_risk = {"token": 0, "session": 0}
    windows = []
    for number in sorted({w for c, _, w in [*seen, *failed] if c == client}):
        for arm in at_risk:
            at_risk[arm] += seen.get((client, arm, number), 0)
        failures = {arm: first.get((client, arm, number), 0) for arm in at_risk}
        if any(failures.values()):
            windows.append(
                Window(
                    token_failures=failures["token"],
                    session_failures=failures["session"],
                    token_subjects=at_risk["token"],
                    session_subjects=at_risk["session"],
                )
            )
        for arm in at_risk:
            at_risk[arm] -= failed.get((client, arm, number), 0)
    return windows
