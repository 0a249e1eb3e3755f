"""A person's way from sessions to tokens and back, over TLS, with the real names of the cookies."""

import json
import ssl
from pathlib import Path

import httpx
import pytest
import trustme
from crossfaded import NAVIGATION, S
from served import serving
from websockets.asyncio.client import connect
from websockets.typing import Origin

pytestmark = pytest.mark.anyio
OURS = {"__Host-crossfade-access", "__Host-crossfade-refresh"}


@pytest.mark.parametrize("legacy", ["sql", "signed"])
async def test_a_person_stays_logged_in_from_sessions_to_tokens_and_back(
    tmp_path: Path, legacy: str
) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    async with (
        serving(tmp_path, legacy=legacy, tls=certificate, cookies={"secure": True}) as one,
        httpx.AsyncClient(base_url=one.url, verify=trust, headers=NAVIGATION) as person,
    ):

        async def cart() -> list[str]:
            found = (await person.get("/api/cart")).json()
            assert found["user"] == "u001"
            return list(found["cart"])

        await person.post("/login", data={"user": "u001", "password": "pw-u001"})
        await person.post("/cart/add", data={"item": "tea"})
        assert set(person.cookies) == {S}
        await one.phase("dual")
        reply = await person.get("/")
        lines = [line for line in reply.headers.get_list("set-cookie") if "crossfade" in line]
        assert {line.partition("=")[0] for line in lines} == OURS
        assert all("; Secure" in line and "Domain" not in line for line in lines)
        await one.phase("tokens")
        await one.outlive_token()
        assert await cart() == ["tea"]
        await person.post("/cart/add", data={"item": "milk"})
        assert await cart() == ["tea", "milk"]
        assert await _user_of_socket(one.url, person, trust) == "u001"
        await one.phase("sessions")
        if legacy == "sql":
            person.cookies.delete(S)
        assert await cart() == ["tea", "milk"]
        assert S in person.cookies
        await person.post("/logout")
        assert (await person.get("/api/cart")).status_code == 401


async def _user_of_socket(url: str, person: httpx.AsyncClient, trust: ssl.SSLContext) -> str:
    """Open a WebSocket with the person's cookies; return whom the shop takes it for."""
    cookies = "; ".join(f"{name}={value}" for name, value in person.cookies.items())
    address = url.replace("https", "wss") + "/ws"
    async with connect(
        address, ssl=trust, additional_headers={"cookie": cookies}, origin=Origin(url)
    ) as socket:
        await socket.send("hello")
        return str(json.loads(await socket.recv())["user"])
