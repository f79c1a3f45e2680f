"""Logging in at an identity provider that runs, there and back, in a client that keeps cookies as a browser does."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import oidc_provider_mock
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from server.accounts import OpenIdProvider, PendingLogin
from server.accounts.throttle import FREE_FAILURES
from server.config import OidcSettings
from server.errors import ConfigError, Unauthorized
from tests.live import LiveServer, make_app, make_workspace, serving

CLAIMS = {"preferred_username": "Kim.Lee", "email": "kim@example.org", "groups": ["staff", "sales-team", "it-admins"]}


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    users = (
        oidc_provider_mock.User(sub="kim", claims=CLAIMS),
        oidc_provider_mock.User(sub="other-kim", claims=CLAIMS),
    )
    with oidc_provider_mock.run_server_in_thread(user_claims=users) as server:
        yield f"http://localhost:{server.server_port}"


@contextmanager
def tailor(folder: Path, provider: str, **oidc: Any) -> Iterator[LiveServer]:
    flags = {"server.password": "correct horse battery", "oidc.issuer": provider, "oidc.client_id": "tailor"}
    flags |= {"oidc.client_secret": "s3cret", **{f"oidc.{name}": value for name, value in oidc.items()}}
    with serving(make_app(make_workspace(folder), flags=flags)) as live:
        yield live


def leave(client: httpx.Client) -> str:
    """To the provider: its address."""
    answer = client.get("/api/oidc/login")
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/api/oidc" in cookie
    return answer.headers["location"]


def log_in_there(url: str, subject: str) -> str:
    """At the provider: the address that it sends the browser back to."""
    answer = httpx.post(url, data={"sub": subject}, timeout=60)
    assert answer.status_code == 302, answer.text
    return answer.headers["location"]


def log_in(client: httpx.Client, subject: str = "kim") -> httpx.Response:
    return client.get(log_in_there(leave(client), subject))


def browser(live: LiveServer) -> httpx.Client:
    return httpx.Client(base_url=live.url, timeout=60)


def who(client: httpx.Client) -> dict[str, Any] | None:
    found = client.get("/api/session").json()["user"]
    return dict(found) if found else None


def test_there_and_back_with_pkce_state_and_nonce(tmp_path: Path, provider: str) -> None:
    with tailor(tmp_path, provider, label="Example") as live, browser(live) as client:
        assert client.get("/api/session").json()["oidc"] == {"label": "Example"}
        url = leave(client)
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) >= 43
        back = client.get(log_in_there(url, "kim"))
        assert (back.status_code, back.headers["location"]) == (303, "/")
        cookies = back.headers.get_list("set-cookie")
        assert any("tailor_session=" in cookie and "SameSite=strict" in cookie for cookie in cookies)
        assert any(re.search(r'tailor_oidc="?"?;.*Max-Age=0', cookie) for cookie in cookies)
        user = who(client)
        assert user is not None
        assert (user["name"], user["roles"]) == ("kim.lee", ["user"])
        assert client.get("/api/account").json()["has_password"] is False
        assert client.get("/api/session").json()["logout_url"].startswith(f"{provider}/oauth2/end_session?")
        with browser(live) as again:
            log_in(again)
            assert who(again) == user  # the same account
        entry = live.app.state.services.audit.page()[0]
        assert (entry.actor, entry.action, entry.detail) == ("kim.lee", "session.opened", {"by": "oidc"})
        assert client.post("/api/logout").status_code == 204
        assert who(client) is None


def test_people_are_known_by_issuer_and_subject_never_by_name(tmp_path: Path, provider: str) -> None:
    with tailor(tmp_path, provider) as live:
        accounts = live.app.state.services.accounts
        taken = accounts.add("kim.lee", "long enough", admin=True)
        with browser(live) as one, browser(live) as two:
            log_in(one, "kim")
            log_in(two, "other-kim")
            users = [who(client) for client in (one, two)]
            assert all(user is not None and user["name"].startswith("kim.lee-") and not user["admin"] for user in users)
            assert len({taken.user_id, *(user["id"] for user in users if user)}) == 3


def test_unknown_people_may_be_refused_and_linked_ones_come_in(tmp_path: Path, provider: str) -> None:
    with tailor(tmp_path, provider, create_accounts=False) as live, browser(live) as client:
        services = live.app.state.services
        assert log_in(client).headers["location"] == "/?login=unknown"
        assert who(client) is None
        assert [account.name for account in services.accounts.list()] == ["admin"]
        assert services.audit.page()[0].action == "session.refused"
        services.accounts.add("kim", "long enough")
        services.identities.link("kim", provider, "kim")
        log_in(client)
        user = who(client)
        assert user is not None
        assert user["name"] == "kim"


def test_roles_and_groups_are_the_providers(tmp_path: Path, provider: str) -> None:
    maps = {
        "groups_claim": "groups",
        "role_map": {"it-admins": "admin", "staff": "curator", "nobody": "trainer"},
        "group_map": {"sales-team": "sales"},
    }
    with tailor(tmp_path, provider, **maps) as live, browser(live) as client:
        services = live.app.state.services
        log_in(client)
        user = who(client)
        assert user is not None
        assert user["roles"] == ["admin", "curator", "user"]
        assert services.groups.of(user["id"]) == ("sales",)
        httpx.put(f"{provider}/users/kim", json={**CLAIMS, "groups": ["staff"]}, timeout=60)
        try:
            log_in(client)
            user = who(client)
            assert user is not None
            assert user["roles"] == ["curator", "user"]
            assert services.groups.of(user["id"]) == ()
        finally:
            httpx.put(f"{provider}/users/kim", json=CLAIMS, timeout=60)


def test_what_does_not_fit_together_opens_nothing(tmp_path: Path, provider: str) -> None:
    with tailor(tmp_path, provider) as live, browser(live) as client, browser(live) as victim:
        back = log_in_there(leave(client), "kim")
        assert victim.get(back).headers["location"] == "/?login=failed"  # no cookie of that login: a forged one
        leave(victim)
        assert victim.get(back).headers["location"] == "/?login=failed"  # of another login
        assert client.get(back.replace("code=", "code=x")).headers["location"] == "/?login=failed"
        assert client.get(back).headers["location"] == "/?login=failed"  # the cookie is spent
        back = log_in_there(leave(client), "kim")
        cookie = client.cookies["tailor_oidc"].strip('"').split(".")
        for spoilt in ([cookie[0], "other", cookie[2]], [cookie[0], cookie[1], "x" * 64]):  # nonce, verifier
            forged = f"tailor_oidc={'.'.join(spoilt)}"
            answer = httpx.get(back, headers={"Cookie": forged}, timeout=60)
            assert answer.headers["location"] == "/?login=failed"
            back = log_in_there(leave(client), "kim")
            cookie = client.cookies["tailor_oidc"].strip('"').split(".")
        for query, says in (("error=access_denied&state=x", "denied"), ("", "failed"), ("code=x&state=y", "failed")):
            assert client.get(f"/api/oidc/callback?{query}").headers["location"] == f"/?login={says}"
        assert who(client) is who(victim) is None


def test_made_up_ways_back_are_slowed(tmp_path: Path, provider: str) -> None:
    with tailor(tmp_path, provider) as live, browser(live) as client:
        for _ in range(20):
            leave(client)
            client.get(
                "/api/oidc/callback",
                params={"code": "x", "state": client.cookies["tailor_oidc"].strip('"').split(".")[0]},
            )
        refused = [entry for entry in live.app.state.services.audit.page() if entry.action == "session.refused"]
        assert FREE_FAILURES <= len(refused) < 12  # the others asked nobody, and are kept nowhere


def test_erasing_an_account_without_a_password_asks_for_its_name(tmp_path: Path, provider: str) -> None:
    with tailor(tmp_path, provider) as live, browser(live) as client:
        log_in(client)
        assert client.post("/api/account/erase", json={"password": "kim"}).status_code == 401
        assert client.post("/api/account/erase", json={"password": "Kim.Lee"}).status_code == 200
        assert who(client) is None
        log_in(client)
        user = who(client)
        assert user is not None  # made anew, and empty
        assert client.get("/api/conversations").json()["conversations"] == []


# ── the ID token ─────────────────────────────────────────────────────────────────────────────────

KEY, OTHER_KEY = (RSAKey.generate_key(2048, {"kid": kid}, private=True) for kid in ("one", "two"))
GOOD = {"iss": "https://id.example", "aud": "tailor", "sub": "kim", "nonce": "n"}


async def checked(claims: dict[str, Any], *, key: Any = KEY, algorithm: str = "RS256") -> dict[str, Any]:
    from joserfc.jwk import KeySet

    settings = OidcSettings(issuer="https://id.example", client_id="tailor")
    checker = OpenIdProvider(settings)
    checker._keys = KeySet([KEY])

    async def no_new_keys(*, anew: bool = False) -> dict[str, Any]:
        return {}

    checker._discover = no_new_keys  # type: ignore[method-assign]
    now = int(time.time())
    token = jwt.encode({"alg": algorithm, "kid": "one"}, {"iat": now, "exp": now + 60, **claims}, key, [algorithm])
    return await checker._checked(token, "n")


async def test_a_token_that_is_right() -> None:
    assert (await checked(GOOD))["sub"] == "kim"
    assert (await checked(GOOD | {"aud": ["tailor", "more"], "azp": "tailor"}))["sub"] == "kim"


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "https://evil.example"},
        {"aud": "another"},
        {"aud": ["tailor", "another"], "azp": "another"},
        {"nonce": "of another login"},
        {"nonce": None},
        {"exp": 1},
        {"sub": None},
    ],
    ids=str,
)
async def test_a_token_that_is_not(wrong: dict[str, Any]) -> None:
    claims = {name: value for name, value in (GOOD | wrong).items() if value is not None}
    with pytest.raises(Unauthorized):
        await checked(claims)


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")  # of making what nobody should take
async def test_a_token_that_somebody_else_signed_or_nobody() -> None:
    secret = OctKey.import_key("x" * 64)
    for key, algorithm in ((OTHER_KEY, "RS256"), (secret, "HS256"), (secret, "none")):
        with pytest.raises(Unauthorized):
            await checked(GOOD, key=key, algorithm=algorithm)


async def test_a_provider_that_does_not_answer_is_told(tmp_path: Path) -> None:
    provider = OpenIdProvider(OidcSettings(issuer="http://127.0.0.1:9", client_id="tailor"))
    with pytest.raises(Unauthorized, match="does not answer"):
        await provider.begin("http://localhost/api/oidc/callback")
    assert "secret" not in repr(PendingLogin("state", "secret", "secret"))


def test_a_provider_needs_a_client_id(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"oidc\.client_id"):
        make_app(make_workspace(tmp_path), flags={"oidc.issuer": "https://id.example"})
