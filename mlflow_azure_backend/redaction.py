"""What must not be written down, taken out of what we write. The job's own output is never altered."""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "***"
"""What stands for a secret."""

# Userinfo of a URL, and the query parameters that grant access: Azure's SAS signature and the usual token names.
_USERINFO = re.compile(r"(?<=://)[^/@\s]*@")
_GRANT = re.compile(r"(?i)([?&](?:sig|signature|token|access_token|api_key|apikey|password|secret|key)=)[^&#\s]+")


def without_credentials(text: str) -> str:
    """``text`` with every URL in it freed of user, password and access tokens."""
    return _GRANT.sub(rf"\g<1>{HIDDEN}", _USERINFO.sub("", text))
