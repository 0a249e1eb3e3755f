"""A small shop, written as someone would have before Crossfade: it knows sessions and nothing else.

Its customers are u000 to u199 with the password `pw-<name>`; every tenth has a second factor, whose
code is 000000. The cart lives in the session, from before the log-in until the log-out.
"""

import secrets
import time
from collections.abc import Callable
from html import escape
from json import JSONDecodeError
from pathlib import Path
from typing import Literal

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from crossfade_migrator.demo.shop_sessions import COOKIE, ShopSessions, create_table

USERS = tuple(f"u{number:03}" for number in range(200))
CODE = "000000"
LARGEST_CART = 100
LONGEST_NAME = 40


def create_shop(
    *,
    legacy: Literal["sql", "signed-cookie"] = "sql",
    database: Path,
    idle: float = 30 * 60,
    absolute: float = 12 * 3600,
    secret: str = "",
    secure: bool = False,
    clock: Callable[[], float] = time.time,
) -> Starlette:
    """Return the shop with sessions in its own table, or in cookies signed with `secret`.

    `idle` and `absolute` are seconds. A signed cookie has no idle time: it ends `absolute` seconds
    after its last change. `clock` dates the sessions of the table.
    """
    if legacy == "sql":
        create_table(database)
        sessions = Middleware(
            ShopSessions,
            database=database,
            idle=idle,
            absolute=absolute,
            secure=secure,
            clock=clock,
        )
    else:
        sessions = Middleware(
            SessionMiddleware,
            secret_key=secret,
            session_cookie=COOKIE,
            max_age=int(absolute),
            https_only=secure,
        )
    return Starlette(routes=ROUTES, middleware=[sessions])


def user_of(connection: HTTPConnection) -> str | None:
    """Return who is logged in."""
    user: str | None = connection.session.get("user_id")
    return user


def cart_of(connection: HTTPConnection) -> list[str]:
    """Return what is in the cart, in the order in which it was put there."""
    return list(connection.session.get("cart", ()))


async def home(request: Request) -> Response:
    """Show who one is and what one wants to buy."""
    items = "".join(f"<li>{escape(item)}</li>" for item in cart_of(request))
    user = user_of(request)
    form = LOG_OUT_FORM if user else '<a href="/login">Log in</a>'
    return page(f"<p>Hello, {escape(user or 'stranger')}.</p><ul>{items}</ul>{CART_FORM}{form}")


async def login(request: Request) -> Response:
    """Ask for name and password; customers with a second factor go on to its page."""
    if request.method == "GET":
        return page(LOGIN_FORM)
    form = await request.form()
    user, password = str(form.get("user", "")), str(form.get("password", ""))
    if user not in USERS or not secrets.compare_digest(password.encode(), f"pw-{user}".encode()):
        return page("<p>Wrong name or password.</p>" + LOGIN_FORM, status=401)
    if has_second_factor(user):
        request.session["pending_user"] = user
        return RedirectResponse("/login/code", 303)
    return logged_in(request, user)


async def login_code(request: Request) -> Response:
    """Ask for the code of a log-in that began with the right password."""
    user = request.session.get("pending_user")
    if user is None:
        return RedirectResponse("/login", 303)
    if request.method == "GET":
        return page(CODE_FORM)
    if (await request.form()).get("code") != CODE:
        return page("<p>Wrong code.</p>" + CODE_FORM, status=401)
    return logged_in(request, user)


def logged_in(request: Request, user: str) -> Response:
    """Make the visitor this user. The cart stays, unless it was somebody else's."""
    if user_of(request) not in {None, user}:
        request.session.pop("cart", None)
    request.session.pop("pending_user", None)
    request.session["user_id"] = user
    request.session["logged_in_at"] = int(time.time())
    return RedirectResponse("/", 303)


async def logout(request: Request) -> Response:
    """Forget everything about the visitor."""
    request.session.clear()
    return RedirectResponse("/", 303)


async def cart_add(request: Request) -> Response:
    """Put something into the cart; strangers may, too."""
    if not add_to_cart(request, (await request.form()).get("item")):
        return page("<p>That does not fit into the cart.</p>", status=400)
    return RedirectResponse("/", 303)


async def account(request: Request) -> Response:
    """Show the customer's own page; strangers are sent to the log-in form."""
    if (user := user_of(request)) is None:
        return RedirectResponse("/login", 303)
    return page(f"<p>Orders and addresses of {escape(user)}.</p>")


async def api_me(request: Request) -> Response:
    """Tell a program who it is."""
    if (user := user_of(request)) is None:
        return JSONResponse({"error": "not logged in"}, 401)
    return JSONResponse({"user": user})


async def api_cart(request: Request) -> Response:
    """Show the cart to a program, or put something in."""
    if (user := user_of(request)) is None:
        return JSONResponse({"error": "not logged in"}, 401)
    if request.method == "POST":
        try:
            body = await request.json()
        except (JSONDecodeError, UnicodeDecodeError):
            body = None
        if not add_to_cart(request, body.get("item") if isinstance(body, dict) else None):
            return JSONResponse({"error": "that does not fit into the cart"}, 400)
    return JSONResponse({"user": user, "cart": cart_of(request)})


async def live(websocket: WebSocket) -> None:
    """Answer each message with who one is and how many things are in the cart."""
    await websocket.accept()
    if (user := user_of(websocket)) is None:
        await websocket.close(1008)
        return
    try:
        while True:
            said = await websocket.receive_text()
            answer = {"user": user, "cart": len(cart_of(websocket)), "said": said}
            await websocket.send_json(answer)
    except WebSocketDisconnect:
        return


async def healthz(request: Request) -> Response:
    """Say that the process runs."""
    return PlainTextResponse("ok")


def add_to_cart(request: Request, item: object) -> bool:
    """Put an item into the cart of the session; False if it is none, or the cart is full."""
    cart = cart_of(request)
    if not isinstance(item, str) or not 0 < len(item) <= LONGEST_NAME or len(cart) >= LARGEST_CART:
        return False
    request.session["cart"] = [*cart, item]
    return True


def has_second_factor(user: str) -> bool:
    """Say whether this customer types a code after the password."""
    return user.endswith("0")


def page(body: str, status: int = 200) -> HTMLResponse:
    """Return a page of the shop."""
    html = f'<!doctype html><html lang="en"><title>Shop</title><body>{body}</body></html>'
    return HTMLResponse(html, status)


LOGIN_FORM = (
    '<form method="post" action="/login"><input name="user"><input name="password"'
    ' type="password"><button>Log in</button></form>'
)
CODE_FORM = (
    '<form method="post" action="/login/code"><input name="code"><button>Go on</button></form>'
)
CART_FORM = '<form method="post" action="/cart/add"><input name="item"><button>Add</button></form>'
LOG_OUT_FORM = '<form method="post" action="/logout"><button>Log out</button></form>'

ROUTES = [
    Route("/", home),
    Route("/login", login, methods=["GET", "POST"]),
    Route("/login/code", login_code, methods=["GET", "POST"]),
    Route("/logout", logout, methods=["POST"]),
    Route("/cart/add", cart_add, methods=["POST"]),
    Route("/account", account),
    Route("/api/me", api_me),
    Route("/api/cart", api_cart, methods=["GET", "POST"]),
    Route("/healthz", healthz),
    WebSocketRoute("/ws", live),
]
