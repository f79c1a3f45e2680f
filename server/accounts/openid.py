"""Signing in at an OpenID Connect provider: authorization code flow, PKCE, state and nonce; the ID token is checked.

OpenID Connect Core 1.0, section 3.1; RFC 7636 (PKCE, S256); RFC 9700 (what is safe today). Needs the extra `oidc`.
Knows nothing of accounts.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

import httpx

from server.config import OidcSettings
from server.errors import ConfigError, Overloaded, Unauthorized

METADATA_S: Final = 3600.0  # how long the provider's addresses and keys are kept
TIMEOUT_S: Final = 15.0
MAX_AT_ONCE: Final = 16  # requests to a provider that does not answer
LEEWAY_S: Final = 60  # that the provider's clock may differ
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")


@dataclass(frozen=True, slots=True)
class PendingLogin:
    """What the browser keeps between leaving for the provider and coming back."""

    state: str
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)


class OpenIdProvider:
    """Belongs to one event loop. Raises ConfigError when built without the extra."""

    def __init__(self, settings: OidcSettings) -> None:
        try:
            import authlib  # noqa: F401  named here, so that the server says at its start what is missing
        except ImportError as error:
            raise ConfigError("oidc.issuer is set, which needs an extra: pip install 'tailor-chat[oidc]'") from error
        self._settings = settings
        self._metadata: dict[str, Any] = {}
        self._keys: Any = None
        self._fetched_at = 0.0
        self._fetching = 0

    async def begin(self, redirect_uri: str) -> tuple[str, PendingLogin]:
        """The address at the provider to send the browser to. Raises Unauthorized where it does not answer."""
        if self._fetching >= MAX_AT_ONCE:
            raise Overloaded("too many logins at the identity provider are under way; try again in a moment", 2.0)
        metadata = await self._discover()
        pending = PendingLogin(*(secrets.token_urlsafe(48) for _ in range(3)))
        async with self._client(redirect_uri) as client:
            url, _ = client.create_authorization_url(
                metadata["authorization_endpoint"],
                state=pending.state,
                nonce=pending.nonce,
                code_verifier=pending.verifier,
            )
        return str(url), pending

    async def finish(self, pending: PendingLogin, redirect_uri: str, code: str) -> dict[str, Any]:
        """The claims of whoever comes back with `code`. Raises Unauthorized."""
        from authlib.integrations.base_client import OAuthError

        metadata = await self._discover()
        try:
            async with self._client(redirect_uri) as client:
                token = await client.fetch_token(
                    metadata["token_endpoint"], code=code, code_verifier=pending.verifier, timeout=TIMEOUT_S
                )
        except OAuthError as error:
            raise Unauthorized(f"the identity provider refused the login ({error.error})") from error
        claims = await self._checked(str(token.get("id_token") or ""), pending.nonce)
        return await self._user_info(str(token.get("access_token") or ""), claims["sub"]) | claims

    def logout_url(self, after: str) -> str | None:
        """Where the browser ends its session at the provider, as far as that is known by now."""
        endpoint = self._metadata.get("end_session_endpoint")
        if not endpoint:
            return None
        query = urlencode({"client_id": self._settings.client_id, "post_logout_redirect_uri": after})
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"

    async def _checked(self, id_token: str, nonce: str) -> dict[str, Any]:
        """Signature, issuer, audience, time and nonce; a key that is not known yet is fetched once."""
        from joserfc import jwt
        from joserfc.errors import JoseError

        settings = self._settings
        rules = jwt.JWTClaimsRegistry(
            leeway=LEEWAY_S,
            iss={"essential": True, "value": settings.issuer},
            sub={"essential": True},
            aud={"essential": True, "value": settings.client_id},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            try:
                token = jwt.decode(id_token, self._keys, algorithms=list(ALGORITHMS))
            except (JoseError, ValueError):  # the provider may have new keys
                await self._discover(anew=True)
                token = jwt.decode(id_token, self._keys, algorithms=list(ALGORITHMS))
            rules.validate(token.claims)
        except (JoseError, ValueError) as error:
            raise Unauthorized("the identity provider's token is not valid; try again") from error
        if isinstance(token.claims["aud"], list) and token.claims.get("azp", settings.client_id) != settings.client_id:
            raise Unauthorized("the identity provider's token is for another application")
        return dict(token.claims)

    async def _user_info(self, access_token: str, subject: str) -> dict[str, Any]:
        """More claims, where the provider tells them beside the token."""
        endpoint = self._metadata.get("userinfo_endpoint")
        if not endpoint or not access_token:
            return {}
        found = await self._fetch(endpoint, {"Authorization": f"Bearer {access_token}"})
        return found if found.get("sub") == subject else {}

    async def _discover(self, *, anew: bool = False) -> dict[str, Any]:
        from joserfc.jwk import KeySet

        if self._metadata and not anew and time.monotonic() - self._fetched_at < METADATA_S:
            return self._metadata
        issuer = self._settings.issuer
        metadata = await self._fetch(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if metadata.get("issuer") != issuer:
            raise Unauthorized(f"oidc.issuer is '{issuer}', and the provider calls itself '{metadata.get('issuer')}'")
        self._keys = KeySet.import_key_set(await self._fetch(metadata["jwks_uri"]))  # type: ignore[arg-type]
        self._metadata, self._fetched_at = metadata, time.monotonic()
        return metadata

    async def _fetch(self, url: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
        self._fetching += 1
        try:
            async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
                answer = (await client.get(url, headers=headers)).raise_for_status().json()
        except (httpx.HTTPError, ValueError) as error:
            raise Unauthorized("the identity provider does not answer; try again, or log in with a password") from error
        finally:
            self._fetching -= 1
        if not isinstance(answer, dict):
            raise Unauthorized("the identity provider answers what is no object")
        return answer

    def _client(self, redirect_uri: str) -> Any:
        from authlib.integrations.httpx_client import AsyncOAuth2Client

        settings = self._settings
        return AsyncOAuth2Client(
            settings.client_id,
            settings.client_secret.get_secret_value(),
            scope=settings.scope,
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
        )
