"""Tokens that prove who one is, and all the ways in which they do not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from infra import clock
from infra.identity import tokens
from infra.identity.tokens import REFETCH_S, Claims, Keys, Verifier, identity
from schemas.errors import Transient, Unauthenticated
from schemas.events import AccessDenied
from schemas.roles import DEFAULT_PURPOSE, Role
from tests.unit.infra.identity.world import run

ISSUER, AUDIENCE = "https://issuer.example", "sijil"
EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)
STRANGER = ec.generate_private_key(ec.SECP256R1())


def public(key: Any, kid: str) -> dict[str, Any]:
    maker = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    alg = "RS256" if maker is RSAAlgorithm else "ES256"
    return {**maker.to_jwk(key.public_key(), as_dict=True), "kid": kid, "alg": alg, "use": "sig"}


class Source:
    """A JWKS that counts how often it is read."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.keys, self.reads, self.away = list(keys), 0, False

    async def read(self) -> Mapping[str, Any]:
        self.reads += 1
        if self.away:
            raise Transient("away")
        return {"keys": self.keys}


def source() -> Source:
    return Source(public(EC_KEY, "e1"), public(RSA_KEY, "r1"))


def verifier(given: Source | None = None) -> Verifier:
    return Verifier(Keys(given or source()), issuer=ISSUER, audience=AUDIENCE, claims=Claims())


def claims(**changed: Any) -> dict[str, Any]:
    now = int(time.time())
    found = {"iss": ISSUER, "aud": AUDIENCE, "sub": "7", "iat": now, "exp": now + 60, "sijil_role": "doctor"}
    return {n: v for n, v in (found | changed).items() if v is not None}


def signed(key: Any = EC_KEY, alg: str = "ES256", kid: str = "e1", **changed: Any) -> str:
    return jwt.encode(claims(**changed), key, alg, headers={"kid": kid})


def refused(token: str, given: Verifier | None = None) -> str:
    with pytest.raises(Unauthenticated) as caught:
        run((given or verifier()).verify(token))
    return caught.value.reason


@pytest.mark.parametrize(("key", "alg", "kid"), [(EC_KEY, "ES256", "e1"), (RSA_KEY, "RS256", "r1")])
def test_a_token_of_the_issuer_says_who_one_is(key: Any, alg: str, kid: str) -> None:
    more = {"sijil_sites": ["CAI-1"], "sijil_person": "p-7", "sijil_purpose": "HQUALIMP"}
    found = run(verifier().verify(signed(key, alg, kid, **more)))
    assert (found.actor, found.roles, sorted(found.sites)) == ("person:p-7", (Role.DOCTOR,), ["CAI-1"])
    assert found.purpose == "HQUALIMP"


def unsigned(head: dict[str, Any]) -> str:
    parts = (base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in (head, claims()))
    return ".".join((*parts, ""))


def test_no_signature_is_none() -> None:
    for alg in ("none", "None", "NONE", "", None):
        assert refused(unsigned({"alg": alg, "kid": "e1", "typ": "JWT"})) in ("token-algorithm", "token-invalid")
    assert refused(unsigned({"alg": "ES256", "kid": "e1"})) == "token-invalid"


def test_a_public_key_is_no_secret_for_an_hmac() -> None:
    """Algorithm confusion (RFC 8725 §2.1)."""
    pem = RSA_KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    head = {"alg": "HS256", "kid": "r1", "typ": "JWT"}
    body = unsigned(head).rsplit(".", 1)[0]
    mac = base64.urlsafe_b64encode(hmac.new(pem, body.encode(), hashlib.sha256).digest()).rstrip(b"=").decode()
    assert refused(f"{body}.{mac}") == "token-algorithm"


def test_each_key_is_for_its_own_algorithm() -> None:
    assert refused(signed(EC_KEY, "ES256", "r1")) == "token-algorithm"
    assert refused(signed(RSA_KEY, "RS512", "r1")) == "token-algorithm"
    assert refused(signed(RSA_KEY, "PS256", "r1")) == "token-algorithm"


def test_another_s_key_proves_nothing() -> None:
    assert refused(signed(STRANGER)) == "token-invalid"
    assert refused(signed(STRANGER, kid="x")) == "token-key"
    # A key that the token brings along (RFC 7515 §4.1.3) is not looked at
    head = {"kid": "x", "jwk": public(STRANGER, "x"), "jku": "https://evil.example/jwks"}
    assert refused(jwt.encode(claims(), STRANGER, "ES256", headers=head)) == "token-key"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"aud": "another"}, "token-audience"),
        ({"aud": None}, "token-invalid"),
        ({"iss": "https://evil.example"}, "token-issuer"),
        ({"iss": None}, "token-invalid"),
        ({"exp": -60}, "token-expired"),
        ({"exp": None}, "token-invalid"),
        ({"nbf": 600}, "token-invalid"),
        ({"iat": 600}, "token-invalid"),
        ({"sub": None}, "token-invalid"),
        ({"sijil_role": None}, "token-role"),
        ({"sijil_role": "root"}, "token-role"),
        ({"sijil_role": "local"}, "token-role"),
        ({"sijil_role": {"doctor": 1}}, "token-role"),
        ({"sijil_sites": "CAI-1"}, "token-sites"),
        ({"sijil_sites": ["a b"]}, "token-sites"),
        ({"sijil_person": "x\ny"}, "token-claim"),
        ({"sijil_patient": "k1:short"}, "token-claim"),
        ({"sijil_purpose": "treat"}, "token-claim"),
    ],
)
def test_what_a_token_must_say(changed: dict[str, Any], reason: str) -> None:
    # Seconds from now: a list of parameters is made long before its test runs
    now = int(time.time())
    times = {name: now + value for name, value in changed.items() if isinstance(value, int)}
    assert refused(signed(**(changed | times))) == reason


def test_a_changed_token_proves_nothing() -> None:
    head, _, mac = signed().split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims(sijil_role="administrator")).encode()).rstrip(b"=").decode()
    assert refused(f"{head}.{body}.{mac}") == "token-invalid"
    assert refused("x" * 9000) == "token-size"


@given(st.text(max_size=200) | st.from_regex(r"[\w-]{0,40}\.[\w-]{0,40}\.[\w-]{0,40}", fullmatch=True))
def test_rubbish_is_refused(text: str) -> None:
    assert refused(text).startswith("token-")


def test_what_was_verified_is_not_verified_again_until_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    given, token = verifier(), signed()
    first = run(given.verify(token))
    monkeypatch.setattr(jwt, "decode", lambda *a, **k: pytest.fail("verified again"))
    assert run(given.verify(token)) is first
    later = clock.now() + timedelta(seconds=120)
    monkeypatch.setattr(clock, "now", lambda: later)
    assert refused(token, given) == "token-expired"


def test_keys_rotate(monkeypatch: pytest.MonkeyPatch) -> None:
    given = source()
    checks = verifier(given)
    now = [1000.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    run(checks.verify(signed()))
    new = ec.generate_private_key(ec.SECP256R1())
    given.keys = [public(new, "e2")]
    assert refused(signed(new, kid="e2"), checks) == "token-key", "not asked again at once: anybody could have it asked"
    for _ in range(50):
        refused(signed(STRANGER, kid="x"), checks)
    assert given.reads == 1
    now[0] += REFETCH_S + 1
    assert run(checks.verify(signed(new, kid="e2"))).roles == (Role.DOCTOR,)
    assert given.reads == 2
    assert refused(signed(sub="8"), checks) == "token-key", "a key that the issuer withdrew"


def test_the_keys_that_are_known_serve_while_the_issuer_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    given = source()
    checks = verifier(given)
    now = [1000.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    run(checks.verify(signed()))
    given.away = True
    now[0] += tokens.JWKS_S + 1
    assert run(checks.verify(signed(sub="8"))).roles == (Role.DOCTOR,)
    with pytest.raises(Transient):
        run(verifier(given).verify(signed()))


def test_a_subject_that_names_somebody_does_not_become_the_actor() -> None:
    found = identity(claims(sub="mona.hassan@example.org"), Claims())
    assert "mona" not in found.actor
    assert found.actor == identity(claims(sub="mona.hassan@example.org"), Claims()).actor
    assert found.person_id == found.actor.removeprefix("person:")


def test_services_and_several_roles() -> None:
    service = identity(claims(sub="gw-1", client_id="gw-1", sijil_role="gateway"), Claims())
    assert (service.actor, service.person_id) == ("service:gw-1", "")
    both = identity(claims(sijil_role=["nurse", "radiologist", "administrator"]), Claims())
    scope: dict[str, Any] = {"headers": [], "client": ("192.0.2.1", 1)}
    assert both.caller(scope).role is Role.RADIOLOGIST
    scope["headers"] = [(b"sijil-role", b"administrator")]
    caller = both.caller(scope)
    assert (caller.role, caller.purpose, caller.address) == (Role.ADMINISTRATOR, "HSYSADMIN", "192.0.2.1")
    scope["headers"] = [(b"sijil-role", b"officer")]
    with pytest.raises(Unauthenticated):
        both.caller(scope)


def test_every_role_of_a_token_can_stand_in_an_event() -> None:
    for role in Role:
        if role is not Role.LOCAL:
            found = identity(claims(sijil_role=str(role)), Claims())
            said = {"role": str(role), "purpose": DEFAULT_PURPOSE[role], "action": "x", "occurred": "x"}
            AccessDenied(access_id="0" * 8, actor=found.actor, reason="role", **said)
