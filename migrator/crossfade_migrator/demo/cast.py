"""Who plays which part besides the crowd: victims, thieves, newcomers, and people who sleep."""

import asyncio
import time

from crossfade.rollout.bucketing import bucket, in_cohort
from crossfade_migrator.demo.clients import Browser, MobileApp, Street
from crossfade_migrator.demo.crowd import look
from crossfade_migrator.demo.house import IDLE
from crossfade_migrator.demo.shop import USERS

CROWD = 154
"""So many of the users are the crowd; the rest are free for parts."""
_SLEEPERS = 6
_TRIES = 5


class Cast:
    """Who plays which part: users that nobody else of the crowd is."""

    def __init__(self, salt: str) -> None:
        self._salt = salt
        self._free = [f"u{number:03}" for number in range(CROWD, len(USERS))]
        self._newcomers = 0

    def someone(self, kind: str, percent: int) -> str:
        """Return a free user whom a share of so many percent takes in."""
        for user in self._free:
            if in_cohort(bucket(self._salt, kind, user), percent * 1000):
                self._free.remove(user)
                return user
        raise LookupError(f"nobody is left for {kind} below {percent} %")

    def sleepers(self, street: Street, percent: int) -> "Sleepers":
        """Return people with browsers and with apps, in turn, whom the share takes in."""
        sleepers = Sleepers(street)
        for number in range(_SLEEPERS):
            if number % 2:
                app = MobileApp(street, self.someone("mobile", percent), "sleeper")
                sleepers.people.append(app)
            else:
                browser = Browser(street, self.someone("web", percent), "sleeper")
                sleepers.people.append(browser)
        return sleepers

    @property
    def given(self) -> int:
        """Return how many were given a part."""
        return len(USERS) - CROWD - len(self._free)

    def newcomers(self) -> tuple[str, str, str]:
        """Return a user, one with a second factor, and one for an app; they have other devices."""
        self._newcomers += 1
        number = 10 * self._newcomers
        return f"u{number + 1:03}", f"u{number:03}", f"u{number + 2:03}"


class Sleepers:
    """People who fall silent with live tokens, and come back."""

    def __init__(self, street: Street) -> None:
        self.people: list[Browser | MobileApp] = []
        self.ledger = street.ledger
        self._since = 0.0

    @property
    def until(self) -> float:
        """Return when they have slept for longer than the shop keeps an idle session."""
        return self._since + IDLE + 1

    @property
    def slept(self) -> float:
        """Return for how long they have been silent."""
        return time.monotonic() - self._since

    async def lie_down(self) -> int:
        """Log in, shop, get tokens, and fall silent; return how many do so."""
        await asyncio.gather(*(self._settle(one) for one in self.people))
        self.people = [one for one in self.people if one.is_in and one.has_tokens]
        self._since = time.monotonic()
        self.ledger.counts["sleepers"] += len(self.people)
        return len(self.people)

    async def _settle(self, one: Browser | MobileApp) -> None:
        for _ in range(_TRIES):
            if not one.is_in and not await one.log_in():
                await asyncio.sleep(0.3)
                continue
            if isinstance(one, Browser):
                if await one.page() and one.has_tokens and await one.add():
                    return
            elif one.has_tokens and await one.call("/api/cart", one.item()):
                return

    async def wake(self) -> int:
        """Let them look into their carts; return how many are still logged in."""
        return sum(await asyncio.gather(*(self._rise(one) for one in self.people)))

    async def _rise(self, one: Browser | MobileApp) -> bool:
        return await look(one) and await look(one)
