"""What other services use: tokens verified with a real JWKS, and the middleware."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from jwks_server import JwksServer, serving
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from token_factory import AUDIENCE, ISSUER, Realm, grant, ring_of

from crossfade.errors import KeysUnavailable, Reason, TokenRejected
from crossfade.keys.ring import KeyRing
from crossfade.principal import Identity
from crossfade.verifier import TokenMiddleware, Verifier


class Scene:
    """An issuer with its published keys, and a service that trusts it."""

    def __init__(self, server: JwksServer, realm: Realm) -> None:
        self.server = server
        self.realm = realm
        self.verifier = Verifier(
            issuer=ISSUER, audience=AUDIENCE, jwks_url=server.url, timeout=2, clock=realm.clock
        )
        app = Starlette(routes=[Route("/me", me), Route("/orders", orders)])
        self.app = TokenMiddleware(app, verifier=self.verifier)

    def token(self, **changes: Any) -> str:
        return self.realm.issuer.mint(grant(**changes)).token

    def rotate(self) -> str:
        """Sign with a new key that is published; return a token of it."""
        known = [key for kid in self.realm.ring.kids if (key := self.realm.ring.get(kid))]
        ring, signing = ring_of("ES256")
        known += [key for kid in ring.kids if (key := ring.get(kid))]
        self.realm.ring = KeyRing(known, signing)
        self.server.document = self.realm.ring.jwks()
        return self.token()

    async def get(self, path: str, *authorization: str) -> httpx.Response:
        headers = [("authorization", value) for value in authorization]
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://stock") as client:
            return await client.get(path, headers=headers)


async def me(request: Request) -> JSONResponse:
    user = request.user
    return JSONResponse({"name": user.display_name, "known": user.is_authenticated})


@requires(["authenticated", "read"], status_code=403)
async def orders(request: Request) -> JSONResponse:
    return JSONResponse({"login": request.user.login_id, "client": request.user.client})


def run(scenario: Callable[[Scene], Awaitable[None]]) -> None:
    async def whole() -> None:
        realm = Realm("ES256")
        async with serving(realm.ring.jwks()) as server:
            scene = Scene(server, realm)
            try:
                await scenario(scene)
            finally:
                await scene.verifier.aclose()

    asyncio.run(whole())


def test_a_token_is_verified_with_the_published_keys() -> None:
    async def scenario(scene: Scene) -> None:
        identity = Identity(subject="u1", tenant="t1")
        verified = await scene.verifier.verify(scene.token(identity=identity))
        assert verified.identity == identity
        assert verified.anchor is None

    run(scenario)


def test_an_expired_token_is_refused_after_the_leeway() -> None:
    async def scenario(scene: Scene) -> None:
        token = scene.token()
        ends = (await scene.verifier.verify(token)).expires_at
        scene.realm.clock.advance(ends + 29 - scene.realm.clock.time())
        assert (await scene.verifier.verify(token)).expires_at == ends
        scene.realm.clock.advance(1)
        with pytest.raises(TokenRejected) as refused:
            await scene.verifier.verify(token)
        assert refused.value.reason is Reason.EXPIRED

    run(scenario)


def test_a_key_that_was_published_since_is_found() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.verifier.verify(scene.token())
        scene.realm.clock.advance(60)
        verified = await scene.verifier.verify(scene.rotate())
        assert verified.kid == scene.realm.ring.signing.kid
        assert scene.server.requests == 2

    run(scenario)


def test_a_new_key_too_soon_to_be_asked_for_is_no_fault_of_the_token() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.verifier.verify(scene.token())
        scene.realm.clock.advance(1)
        with pytest.raises(KeysUnavailable):
            await scene.verifier.verify(scene.rotate())
        scene.realm.clock.advance(10)
        verified = await scene.verifier.verify(scene.token())
        assert verified.kid == scene.realm.ring.signing.kid

    run(scenario)


def test_a_flood_of_unknown_keys_makes_one_fetch() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.verifier.verify(scene.token())
        scene.realm.clock.advance(60)
        forged = [scene.realm.forge(header={"kid": f"k{n}"}).decode() for n in range(100)]
        replies = (scene.verifier.verify(token) for token in forged)
        results = await asyncio.gather(*replies, return_exceptions=True)
        assert {type(result) for result in results} == {TokenRejected}
        assert scene.server.requests == 2

    run(scenario)


def test_a_kid_that_the_issuer_does_not_have_is_remembered() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.verifier.verify(scene.token())
        forged = scene.realm.forge(header={"kid": "nobody's"}).decode()
        scene.realm.clock.advance(60)
        for _ in range(20):
            scene.realm.clock.advance(0.1)
            with pytest.raises(TokenRejected):
                await scene.verifier.verify(forged)
        assert scene.server.requests == 2

    run(scenario)


def test_an_issuer_that_went_away_leaves_its_tokens_good() -> None:
    async def scenario(scene: Scene) -> None:
        token = scene.token()
        await scene.verifier.verify(token)
        scene.server.status = 500
        scene.realm.clock.advance(400)
        assert (await scene.verifier.verify(token)).identity.subject == "u1"

    run(scenario)


def test_text_that_no_header_could_hold_is_refused() -> None:
    async def scenario(scene: Scene) -> None:
        for text in ("\ud800", "é", "", "a.b.c"):
            with pytest.raises(TokenRejected):
                await scene.verifier.verify(text)

    run(scenario)


def test_a_bearer_becomes_the_user_of_the_request() -> None:
    async def scenario(scene: Scene) -> None:
        token = scene.token(scopes=("read",))
        me = await scene.get("/me", f"bearer {token}")
        orders = await scene.get("/orders", f"Bearer {token}")
        assert me.json() == {"name": "u1", "known": True}
        assert orders.json() == {"login": "AAECAwQFBgcICQoLDA0ODw", "client": "web"}
        assert (await scene.get("/orders", f"Bearer {scene.token()}")).status_code == 403

    run(scenario)


@pytest.mark.parametrize(
    "header", [None, "Basic eDp5", "Bearer", "Bearer null", "bearer undefined"]
)
def test_without_a_bearer_the_request_is_nobodys(header: str | None) -> None:
    async def scenario(scene: Scene) -> None:
        given = [header] if header else []
        reply = await scene.get("/me", *given)
        assert reply.json() == {"name": "", "known": False}
        assert (await scene.get("/orders", *given)).status_code == 403

    run(scenario)


def test_a_bad_bearer_is_answered_with_a_challenge_and_no_reason() -> None:
    async def scenario(scene: Scene) -> None:
        for bearer in ("garbage", scene.realm.forge(aud="mail").decode()):
            reply = await scene.get("/me", f"Bearer {bearer}")
            assert reply.status_code == 401
            assert reply.headers["www-authenticate"] == 'Bearer error="invalid_token"'
            assert reply.headers["cache-control"] == "no-store"
            assert reply.json() == {"error": "invalid_token"}

    run(scenario)


def test_two_bearers_are_a_bad_request() -> None:
    async def scenario(scene: Scene) -> None:
        token = f"Bearer {scene.token()}"
        reply = await scene.get("/me", token, token)
        assert (reply.status_code, reply.json()) == (400, {"error": "invalid_request"})

    run(scenario)


def test_missing_keys_are_our_fault_and_say_when_to_come_again() -> None:
    async def scenario(scene: Scene) -> None:
        scene.server.status = 500
        reply = await scene.get("/me", f"Bearer {scene.token()}")
        assert reply.status_code == 503
        assert int(reply.headers["retry-after"]) > 0
        assert "www-authenticate" not in reply.headers

    run(scenario)


@asynccontextmanager
async def a_websocket(
    scene: Scene, token: str, extensions: dict[str, Any]
) -> AsyncIterator[list[dict[str, Any]]]:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    headers = [(b"authorization", f"Bearer {token}".encode())]
    scope = {"type": "websocket", "path": "/ws", "headers": headers, "extensions": extensions}
    await scene.app(scope, receive, send)
    yield sent


def test_a_websocket_with_a_bad_bearer_is_denied_before_it_opens() -> None:
    async def scenario(scene: Scene) -> None:
        async with a_websocket(scene, "garbage", {"websocket.http.response": {}}) as sent:
            assert sent[0]["type"] == "websocket.http.response.start"
            assert sent[0]["status"] == 401
        async with a_websocket(scene, "garbage", {}) as sent:
            assert [message["type"] for message in sent] == ["websocket.close"]
            assert sent[0]["code"] == 1008

    run(scenario)


def test_it_imports_neither_database_nor_settings() -> None:
    code = "import sys, crossfade.verifier; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "crossfade.verifier" in loaded
    assert not {"sqlalchemy", "msgspec", "prometheus_client", "itsdangerous"} & loaded
