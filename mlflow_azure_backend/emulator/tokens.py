"""Bearer tokens: issued by the emulated identity service, checked and expired as the real ones."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from mlflow_azure_backend.emulator.clock import Clock

_ALGORITHM = "RS256"


class BadToken(Exception):
    """A token that is not accepted.

    Attributes:
        code: Resource Manager's code for it.
        message: Why, in its words.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Tokens:
    """Issues and checks JSON web tokens, signed with a key of this emulator's own.

    Args:
        folder: Where the key is kept, so that tokens survive a restart.
        tenant: The tenant's id.
        clock: The service's time.
    """

    def __init__(self, folder: Path, tenant: str, clock: Clock) -> None:
        self._clock = clock
        self._issuer = f"https://sts.windows.net/{tenant}/"
        self._tenant = tenant
        self._private = _signing_key(folder / "tokens.pem")
        self._public = self._private.public_key()
        self._verified: dict[str, dict[str, Any]] = {}
        self._revoked_before = 0.0

    def issue(self, audience: str, lifetime: timedelta, **claims: Any) -> tuple[str, int]:
        """A token and when it expires (seconds since the epoch, of the service's clock)."""
        now = self._clock.now()
        expires = int((now + lifetime).timestamp())
        payload = {
            "aud": audience,
            "iss": self._issuer,
            "tid": self._tenant,
            "iat": now.timestamp(),
            "nbf": int(now.timestamp()),
            "exp": expires,
            "ver": "1.0",
            **claims,
        }
        return jwt.encode(payload, self._private, algorithm=_ALGORITHM), expires

    def revoke_all(self) -> None:
        """Let every token that was issued until now count as expired."""
        self._revoked_before = self._clock.now().timestamp()

    def verify(self, token: str, audiences: tuple[str, ...]) -> Mapping[str, Any]:
        """The claims of a token.

        Raises:
            BadToken: It is none of ours, made out to somebody else, or expired.
        """
        claims = self._verified.get(token)
        if claims is None:
            options: Any = {"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False}
            try:
                claims = jwt.decode(token, self._public, algorithms=[_ALGORITHM], options=options)
            except jwt.PyJWTError:
                raise BadToken("InvalidAuthenticationToken", "The access token is invalid.") from None
            if len(self._verified) > 1000:
                self._verified.clear()
            self._verified[token] = claims
        if claims["aud"].rstrip("/") not in audiences:
            raise BadToken(
                "InvalidAuthenticationTokenAudience",
                f"The access token has been obtained for wrong audience or resource '{claims['aud']}'. It should "
                f"exactly match with one of the allowed audiences {', '.join(repr(one) for one in audiences)}.",
            )
        if claims["exp"] <= self._clock.now().timestamp() or claims["iat"] <= self._revoked_before:
            raise self.expired(claims["exp"])
        return claims

    def expired(self, expires: float) -> BadToken:
        """What is said of a token that expired at this time (seconds since the epoch): AzureNotebooks#586."""
        now = self._clock.now()
        then = min(datetime.fromtimestamp(expires, timezone.utc), now)
        told = [f"{one.month}/{one.day}/{one:%Y} {one:%I:%M:%S %p}" for one in (then, now)]
        words = f"The access token expiry UTC time '{told[0]}' is earlier than current UTC time '{told[1]}'."
        return BadToken("ExpiredAuthenticationToken", words)


def _signing_key(file: Path) -> rsa.RSAPrivateKey:
    if file.exists():
        key = serialization.load_pem_private_key(file.read_bytes(), None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError(f"{file} holds no RSA key")
        return key
    key = rsa.generate_private_key(65537, 2048)
    file.touch(mode=0o600)
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return key
