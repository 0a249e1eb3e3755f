"""The strict verifier: what it accepts, why it refuses, and that nothing else comes out of it."""

import time

import jwt
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from token_factory import ANCHOR, AUDIENCE, ISSUER, Realm, dumped, grant, ring_of

from crossfade.errors import KeysUnavailable, Reason, TokenRejected
from crossfade.keys.jwks import ALGORITHMS
from crossfade.keys.ring import KeyRing, KeyState
from crossfade.tokens import jws
from crossfade.tokens.verifier import COOKIE_CAP, TokenCache, TokenVerifier

REALM = Realm()
NOW = int(REALM.clock.time())
GOOD = REALM.forge()
HEADER, PAYLOAD, SIGNATURE = GOOD.split(b".")
OTHER_RING, OTHER_KEY = ring_of()

forge, sign, header, claims = REALM.forge, REALM.sign, REALM.header, REALM.claims


def joined(*parts: bytes) -> bytes:
    return b".".join(parts)


def resigned(payload: bytes) -> bytes:
    """The payload segment as given, with a true signature over it."""
    signed = joined(HEADER, payload)
    return joined(signed, jws.encode(REALM.signing.sign(signed)))


def twin(segment: bytes) -> bytes:
    """Another spelling of the same bytes: trailing bits that a lenient decoder drops."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(segment[-1:])
    return segment[:-1] + alphabet[last + 1 : last + 2]


def signed_by_another(**changes: str) -> bytes:
    signed = joined(jws.encode(dumped(header(**changes))), PAYLOAD)
    return joined(signed, jws.encode(OTHER_KEY.sign(signed)))


def deep(levels: int) -> bytes:
    body = dumped(claims())[:-1] + b', "x": ' + b"[" * levels + b"]" * levels + b"}"
    return sign(header(), body)


def member(text: str) -> bytes:
    """The good claims with one more member, written as it stands."""
    return sign(header(), dumped(claims())[:-1] + f", {text}}}".encode())


BAD: dict[str, tuple[bytes, Reason]] = {
    "nothing": (b"", Reason.MALFORMED),
    "a word": (b"garbage", Reason.MALFORMED),
    "two parts": (joined(HEADER, PAYLOAD), Reason.MALFORMED),
    "four parts": (GOOD + b".x", Reason.MALFORMED),
    "five parts, as a JWE has": (joined(HEADER, b"a", b"b", b"c", b"d"), Reason.MALFORMED),
    "only dots": (b"..", Reason.MALFORMED),
    "not ASCII": (GOOD + "é".encode(), Reason.MALFORMED),
    "a NUL at the end": (GOOD + b"\0", Reason.MALFORMED),
    "a newline at the end": (GOOD + b"\n", Reason.MALFORMED),
    "a space before": (b" " + GOOD, Reason.MALFORMED),
    "over the cap": (GOOD + b"A" * 8192, Reason.TOO_LARGE),
    "a header too long": (forge(header={"pad": "x" * 2048}), Reason.MALFORMED),
    "padding in the header": (joined(HEADER + b"==", PAYLOAD, SIGNATURE), Reason.MALFORMED),
    "padding in the payload": (resigned(PAYLOAD + b"="), Reason.MALFORMED),
    "padding in the signature": (GOOD + b"==", Reason.MALFORMED),
    "standard base64": (resigned(jws.encode(b"{\xff\xff}").replace(b"_", b"/")), Reason.MALFORMED),
    "a space in the payload": (resigned(PAYLOAD[:8] + b" " + PAYLOAD[8:]), Reason.MALFORMED),
    "trailing bits in the signature": (joined(HEADER, PAYLOAD, twin(SIGNATURE)), Reason.MALFORMED),
    "one character too many": (joined(HEADER, PAYLOAD, SIGNATURE + b"AAA"), Reason.MALFORMED),
    "a header that is no JSON": (sign(b"{", claims()), Reason.MALFORMED),
    "a header that is a list": (sign(b"[]", claims()), Reason.MALFORMED),
    "a header in UTF-16": (
        sign(dumped(header()).decode().encode("utf-16"), b"{}"),
        Reason.MALFORMED,
    ),
    "a header with a BOM": (sign(b"\xef\xbb\xbf" + dumped(header()), claims()), Reason.MALFORMED),
    "alg twice": (
        sign(dumped(header())[:-1] + b', "alg": "EdDSA"}', claims()),
        Reason.MALFORMED,
    ),
    "no typ": (forge(header={"typ": None}), Reason.BAD_TYPE),
    "typ JWT": (forge(header={"typ": "JWT"}), Reason.BAD_TYPE),
    "typ of an ID token": (forge(header={"typ": "id_token+jwt"}), Reason.BAD_TYPE),
    "typ that is no text": (forge(header={"typ": ["at+jwt"]}), Reason.BAD_TYPE),
    "typ with a space": (forge(header={"typ": "at+jwt "}), Reason.BAD_TYPE),
    "crit": (forge(header={"crit": ["exp"]}), Reason.FORBIDDEN_HEADER),
    "b64": (forge(header={"b64": True}), Reason.FORBIDDEN_HEADER),
    "zip": (forge(header={"zip": "DEF"}), Reason.FORBIDDEN_HEADER),
    "enc": (forge(header={"enc": "A256GCM"}), Reason.FORBIDDEN_HEADER),
    "cty": (forge(header={"cty": "JWT"}), Reason.FORBIDDEN_HEADER),
    "jku": (forge(header={"jku": "https://evil.example/jwks"}), Reason.FORBIDDEN_HEADER),
    "jwk": (forge(header={"jwk": OTHER_RING.jwks()["keys"][0]}), Reason.FORBIDDEN_HEADER),
    "x5u": (forge(header={"x5u": "https://evil.example/"}), Reason.FORBIDDEN_HEADER),
    "x5c": (forge(header={"x5c": []}), Reason.FORBIDDEN_HEADER),
    "x5t#S256": (forge(header={"x5t#S256": "x"}), Reason.FORBIDDEN_HEADER),
    "no kid": (forge(header={"kid": None}), Reason.UNKNOWN_KID),
    "an empty kid": (forge(header={"kid": ""}), Reason.UNKNOWN_KID),
    "kid of another key": (forge(header={"kid": OTHER_KEY.kid}), Reason.UNKNOWN_KID),
    "kid that is no text": (forge(header={"kid": ["x"]}), Reason.UNKNOWN_KID),
    "kid that is a path": (forge(header={"kid": "../../dev/null"}), Reason.UNKNOWN_KID),
    "no alg": (forge(header={"alg": None}), Reason.BAD_ALGORITHM),
    "alg none": (
        joined(jws.encode(dumped(header(alg="none"))), PAYLOAD, b""),
        Reason.BAD_ALGORITHM,
    ),
    "alg in other case": (forge(header={"alg": "eddsa"}), Reason.BAD_ALGORITHM),
    "alg HS256": (forge(header={"alg": "HS256"}), Reason.BAD_ALGORITHM),
    "alg that is no text": (forge(header={"alg": {}}), Reason.BAD_ALGORITHM),
    "signed by another key": (signed_by_another(), Reason.BAD_SIGNATURE),
    "no signature": (joined(HEADER, PAYLOAD, b""), Reason.BAD_SIGNATURE),
    "a signature cut short": (
        GOOD[: -len(SIGNATURE)] + jws.encode(bytes(61)),
        Reason.BAD_SIGNATURE,
    ),
    "a signature of zeros": (joined(HEADER, PAYLOAD, jws.encode(bytes(64))), Reason.BAD_SIGNATURE),
    "another payload": (
        joined(HEADER, jws.encode(dumped(claims(sub="root"))), SIGNATURE),
        Reason.BAD_SIGNATURE,
    ),
    "a payload that is no JSON": (sign(header(), b"hello"), Reason.MALFORMED),
    "a payload that is text": (sign(header(), b'"hello"'), Reason.MALFORMED),
    "a payload in UTF-16": (
        sign(header(), dumped(claims()).decode().encode("utf-16-le")),
        Reason.MALFORMED,
    ),
    "a payload in Latin-1": (sign(header(), '{"sub": "é"}'.encode("latin-1")), Reason.MALFORMED),
    "sub twice": (member('"sub": "root"'), Reason.MALFORMED),
    "a member twice further down": (member('"x": {"a": 1, "a": 2}'), Reason.MALFORMED),
    "NaN": (member('"x": NaN'), Reason.MALFORMED),
    "Infinity": (member('"x": -Infinity'), Reason.MALFORMED),
    "a number too large": (member('"x": 1e999'), Reason.MALFORMED),
    "an integer of 5,000 digits": (member('"x": ' + "9" * 5000), Reason.MALFORMED),
    "a lone surrogate": (member(r'"x": "\ud800"'), Reason.MALFORMED),
    "a lone surrogate in a name": (member(r'"\udc00": 1'), Reason.MALFORMED),
    "17 levels": (deep(16), Reason.MALFORMED),
    "a thousand levels": (deep(2500), Reason.MALFORMED),
    "no iss": (forge(iss=None), Reason.BAD_CLAIMS),
    "no aud": (forge(aud=None), Reason.BAD_CLAIMS),
    "no sub": (forge(sub=None), Reason.BAD_CLAIMS),
    "no sid": (forge(sid=None), Reason.BAD_CLAIMS),
    "no jti": (forge(jti=None), Reason.BAD_CLAIMS),
    "no client_id": (forge(client_id=None), Reason.BAD_CLAIMS),
    "no exp": (forge(exp=None), Reason.BAD_CLAIMS),
    "no iat": (forge(iat=None), Reason.BAD_CLAIMS),
    "no nbf": (forge(nbf=None), Reason.BAD_CLAIMS),
    "no auth_time": (forge(auth_time=None), Reason.BAD_CLAIMS),
    "an empty sub": (forge(sub=""), Reason.BAD_CLAIMS),
    "a sub that is a number": (forge(sub=1), Reason.BAD_CLAIMS),
    "an empty aud": (forge(aud=[]), Reason.BAD_CLAIMS),
    "an aud with a number": (forge(aud=[AUDIENCE, 1]), Reason.BAD_CLAIMS),
    "exp as text": (forge(exp=str(NOW + 600)), Reason.BAD_CLAIMS),
    "exp as boolean": (forge(exp=True), Reason.BAD_CLAIMS),
    "exp as a fraction": (forge(exp=NOW + 600.5), Reason.BAD_CLAIMS),
    "exp beyond the calendar": (forge(exp=10**30), Reason.BAD_CLAIMS),
    "a negative exp": (forge(exp=-1), Reason.BAD_CLAIMS),
    "iat as text": (forge(iat=str(NOW)), Reason.BAD_CLAIMS),
    "nbf as boolean": (forge(nbf=False), Reason.BAD_CLAIMS),
    "nbf as the boolean that counts as one": (forge(nbf=True), Reason.BAD_CLAIMS),
    "auth_time as text": (forge(auth_time="now"), Reason.BAD_CLAIMS),
    "auth_time as boolean": (forge(auth_time=True), Reason.BAD_CLAIMS),
    "exp before iat": (forge(exp=NOW - 10), Reason.BAD_CLAIMS),
    "exp equal to iat": (forge(exp=NOW), Reason.BAD_CLAIMS),
    "nbf after exp": (forge(nbf=NOW + 600), Reason.BAD_CLAIMS),
    "a life of more than a day": (forge(exp=NOW + 86_401), Reason.BAD_CLAIMS),
    "a sid of 15 bytes": (forge(sid="A" * 20), Reason.BAD_CLAIMS),
    "a sid of 17 bytes": (forge(sid="A" * 23), Reason.BAD_CLAIMS),
    "a sid in another spelling": (forge(sid="AAECAwQFBgcICQoLDA0ODx"), Reason.BAD_CLAIMS),
    "a tenant that is null": (member('"tenant": null'), Reason.BAD_CLAIMS),
    "a scope that is a list": (forge(scope=["a"]), Reason.BAD_CLAIMS),
    "an amr that is text": (forge(amr="pwd"), Reason.BAD_CLAIMS),
    "an act without sub": (forge(act={"iss": "x"}), Reason.BAD_CLAIMS),
    "an act that is text": (forge(act="admin"), Reason.BAD_CLAIMS),
    "another issuer": (forge(iss="https://evil.example"), Reason.BAD_ISSUER),
    "the issuer with a slash": (forge(iss=ISSUER + "/"), Reason.BAD_ISSUER),
    "another audience": (forge(aud="stock"), Reason.BAD_AUDIENCE),
    "an audience that begins like ours": (forge(aud="shop2"), Reason.BAD_AUDIENCE),
    "other audiences": (forge(aud=["stock", "mail"]), Reason.BAD_AUDIENCE),
    "not valid yet": (forge(nbf=NOW + 31), Reason.NOT_YET_VALID),
    "issued in the future": (forge(iat=NOW + 31), Reason.NOT_YET_VALID),
}


@pytest.mark.parametrize(("token", "reason"), BAD.values(), ids=BAD)
def test_a_bad_token_is_refused_for_its_reason(token: bytes, reason: Reason) -> None:
    with pytest.raises(TokenRejected) as refused:
        REALM.verifier.verify(token)
    assert refused.value.reason is reason


def test_each_reason_that_a_token_can_be_refused_for_is_in_the_table() -> None:
    callers = {"expired", "revoked", "keys_unavailable", "revocations_stale", "foreign"}
    presented = {
        "empty_bearer",
        "several_credentials",
        "legacy_refused",
        "identity_conflict",
        "csrf",
    }
    of_tokens = {r for r in Reason if not r.startswith("session_")} - callers - presented
    assert {reason for _, reason in BAD.values()} == of_tokens


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_of_each_algorithm_is_read(algorithm: str) -> None:
    realm = Realm(algorithm)  # type: ignore[arg-type]  # one of the closed set
    token = realm.forge(tenant="t", act={"sub": "admin"}, scope="a b", auth_time=NOW - 0.25)
    verified = realm.verifier.verify(token)
    assert (verified.identity.subject, verified.identity.tenant) == ("u1", "t")
    assert verified.identity.actor == "admin"
    assert verified.sid == bytes(range(16))
    assert verified.login_id == "AAECAwQFBgcICQoLDA0ODw"
    assert (verified.client, verified.scopes) == ("web", ("a", "b"))
    assert verified.auth_time == NOW - 0.25
    assert (verified.issued_at, verified.not_before, verified.expires_at) == (NOW, NOW, NOW + 600)
    assert verified.kid == realm.signing.kid


@pytest.mark.parametrize("kind", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt"])
def test_the_type_is_compared_without_case(kind: str) -> None:
    assert REALM.verifier.verify(forge(header={"typ": kind})).jti == "t1"


def test_an_unknown_header_member_is_ignored() -> None:
    assert REALM.verifier.verify(forge(header={"x": 1})).jti == "t1"


def test_sixteen_levels_are_not_too_deep() -> None:
    assert REALM.verifier.verify(deep(15)).claims["x"]


def test_brackets_in_text_are_no_levels() -> None:
    assert REALM.verifier.verify(forge(note="[{" * 40)).claims["note"] == "[{" * 40


def test_an_expired_token_is_returned_for_the_caller_to_judge() -> None:
    realm = Realm()
    token = realm.forge()
    realm.clock.advance(86_400)
    assert realm.verifier.verify(token).expires_at < realm.clock.time()


def test_a_token_from_a_clock_within_the_leeway_is_good() -> None:
    assert REALM.verifier.verify(forge(iat=NOW + 30, nbf=NOW + 30)).issued_at == NOW + 30


def test_an_audience_list_with_us_is_good_and_opens_no_anchor() -> None:
    minted = REALM.issuer.mint(grant(anchor=ANCHOR))
    sealed = minted.verified.claims["anc"]
    several = REALM.verifier.verify(forge(aud=[AUDIENCE, "stock"], anc=sealed))
    assert minted.verified.anchor == ANCHOR
    assert several.anchor is None


def test_a_cookie_takes_less_than_a_bearer() -> None:
    long = forge(pad="x" * 4000)
    assert REALM.verifier.verify(long).jti == "t1"
    with pytest.raises(TokenRejected) as refused:
        REALM.verifier.verify(long, cap=COOKIE_CAP)
    assert refused.value.reason is Reason.TOO_LARGE


def test_without_keys_a_well_formed_token_is_our_fault() -> None:
    realm = Realm()
    token = realm.forge()
    realm.ring = KeyRing.empty()
    with pytest.raises(KeysUnavailable):
        realm.verifier.verify(token)


def test_without_keys_garbage_is_still_garbage() -> None:
    realm = Realm()
    realm.ring = KeyRing.empty()
    with pytest.raises(TokenRejected):
        realm.verifier.verify(b"garbage")


def test_the_same_text_gives_the_same_object() -> None:
    token = forge(jti="same")
    assert REALM.verifier.verify(token) is REALM.verifier.verify(bytes(bytearray(token)))


def test_a_retired_key_ends_what_was_verified_with_it() -> None:
    realm = Realm()
    token = realm.forge()
    realm.verifier.verify(token)
    realm.ring, _ = ring_of()
    with pytest.raises(TokenRejected) as refused:
        realm.verifier.verify(token)
    assert refused.value.reason is Reason.UNKNOWN_KID


def test_an_empty_ring_answers_nothing_from_memory() -> None:
    realm = Realm()
    token = realm.forge()
    realm.verifier.verify(token)
    realm.ring = KeyRing.empty()
    with pytest.raises(KeysUnavailable):
        realm.verifier.verify(token)


@pytest.mark.parametrize("state", [KeyState.NEXT, KeyState.RETIRING])
def test_a_key_verifies_before_and_after_it_signs(state: KeyState) -> None:
    realm = Realm()
    realm.ring, realm.signing = ring_of("ES256", state)
    assert realm.verifier.verify(realm.forge()).kid == realm.signing.kid


def test_a_forgotten_token_is_read_anew() -> None:
    token = forge(jti="forgotten")
    before = REALM.verifier.verify(token)
    REALM.verifier.forget(token)
    assert REALM.verifier.verify(token) is not before


def test_a_token_is_forgotten_in_every_generation() -> None:
    cache, verified = TokenCache(entries=1), REALM.verifier.verify(GOOD)
    cache.put(b"old", verified)
    cache.put(b"young", verified)
    cache.forget(b"old")
    cache.forget(b"young")
    assert len(cache) == 0


def test_the_cache_holds_at_most_two_generations() -> None:
    cache, verified = TokenCache(entries=10), REALM.verifier.verify(GOOD)
    for number in range(100):
        cache.put(b"%d" % number, verified)
    assert len(cache) == 20
    assert cache.get(b"99") is verified
    assert cache.get(b"0") is None


def test_a_token_in_use_survives_the_change_of_generations() -> None:
    cache, verified = TokenCache(entries=10), REALM.verifier.verify(GOOD)
    cache.put(b"busy", verified)
    for number in range(100):
        cache.put(b"%d" % number, verified)
        assert cache.get(b"busy") is verified


def test_nothing_of_a_token_shows_in_its_repr_or_its_refusal() -> None:
    verified = REALM.verifier.verify(forge(sub="secret-subject"))
    with pytest.raises(TokenRejected) as refused:
        REALM.verifier.verify(forge(sub="secret-subject", aud="secret-audience"))
    assert "secret" not in repr(verified) + repr(refused.value) + str(refused.value)


def test_the_claims_are_read_only() -> None:
    with pytest.raises(TypeError):
        REALM.verifier.verify(GOOD).claims["sub"] = "root"  # type: ignore[index]  # refused


@pytest.mark.parametrize(
    ("bearer", "meant"),
    [
        (GOOD, True),
        (joined(HEADER, PAYLOAD, b""), True),
        (GOOD + b"=", True),
        (b"SG.abc.def", False),
        (b"garbage.garbage.garbage", False),
        (joined(HEADER, PAYLOAD), False),
        (joined(HEADER, b"a", b"b", b"c", b"d"), False),
        (b"", False),
        (GOOD + b"\n", False),
    ],
)
def test_what_opens_with_an_object_and_has_three_parts_is_meant_as_a_jwt(
    bearer: bytes, meant: bool
) -> None:
    assert jws.looks_like_jwt(bearer) is meant


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_and_nothing_else(token: bytes) -> None:
    with pytest.raises(TokenRejected):
        REALM.verifier.verify(token)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_any_one_byte_changed_is_refused(place: int, difference: int) -> None:
    changed = bytearray(GOOD)
    changed[place] ^= difference
    with pytest.raises(TokenRejected):
        REALM.verifier.verify(bytes(changed))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([ISSUER, AUDIENCE, "web", "AAECAwQFBgcICQoLDA0ODw", NOW, NOW + 600]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from([*claims(), "amr", "scope", "tenant", "act", "anc", "x"])
HEADERS = st.sampled_from(["typ", "alg", "kid", "crit", "b64", "x5t", "x"])


@given(payload=JSON, members=st.dictionaries(HEADERS, JSON, max_size=2))
def test_any_signed_json_is_refused_or_read(payload: object, members: dict[str, object]) -> None:
    token = sign(dumped(header() | members), dumped(payload))  # type: ignore[arg-type]  # any JSON
    with pytest.raises(TokenRejected):
        REALM.verifier.verify(token)


class RealTime:
    """The system's time: PyJWT knows no other."""

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


@settings(deadline=None, max_examples=400)
@given(
    changes=st.dictionaries(NAMES, JSON, max_size=3),
    shift=st.integers(-40, 40),
    life=st.integers(-5, 700),
    extra=st.dictionaries(st.text(max_size=4), JSON, max_size=2),
)
def test_whatever_is_accepted_pyjwt_accepts_with_equal_claims(
    changes: dict[str, object], shift: int, life: int, extra: dict[str, object]
) -> None:
    now = int(time.time())
    times = {"iat": now + shift, "nbf": now + shift, "exp": now + shift + life}
    token = sign(dumped(header()), dumped({**extra, **claims(), **times, **changes}))
    verifier = TokenVerifier(
        issuer=ISSUER, audience=AUDIENCE, keys=lambda: REALM.ring, clock=RealTime(), leeway=30.0
    )
    try:
        verified = verifier.verify(token)
    except TokenRejected as refused:
        event(f"refused: {refused.reason}")
        return
    if verified.expires_at + 30 <= time.time():
        return
    event("accepted")
    decoded = jwt.decode(
        token,
        jwt.PyJWK(REALM.ring.jwks()["keys"][0]),
        algorithms=["EdDSA"],
        issuer=ISSUER,
        audience=AUDIENCE,
        leeway=31,
        options={
            "require": ["iss", "aud", "sub", "jti", "iat", "nbf", "exp"],
            "enforce_minimum_key_length": True,
        },
    )
    assert dict(verified.claims) == decoded
