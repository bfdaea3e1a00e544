"""Credentials in a file's content, searched only in what is about to leave the machine.

Few kinds and certain ones: each has a fixed form and enough random characters that nothing else looks like it.
The bytes around which an expression is tried are searched first, for that costs a tenth of trying it everywhere.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

OVERLAP: Final = 2048
"""Bytes of one block that are searched again with the next; no credential is longer."""

# The key of every Azurite and of the old storage emulator, printed in Microsoft's documentation.
_PUBLIC_KEY: Final = b"Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


class _Kind(NamedTuple):
    """One kind of credential: what it is called, what always stands in it, and its whole form."""

    name: str
    fixed: bytes
    form: re.Pattern[bytes]


_KINDS: Final = (
    _Kind(
        "a private key",
        b"PRIVATE KEY",
        re.compile(
            rb"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
            rb"(?:\\[rn]|[\s\"'+,#]|(?:Proc-Type|DEK-Info|Version|Comment):[^\n]{0,100}){1,200}[A-Za-z0-9+/]{40}"
        ),
    ),
    _Kind(
        "an Azure storage account key",
        b"AccountKey=",
        re.compile(rb"AccountKey=(?!" + re.escape(_PUBLIC_KEY) + rb")[A-Za-z0-9+/]{86}=="),
    ),
    _Kind("an Azure access key", b"SharedAccessKey=", re.compile(rb"SharedAccessKey=[A-Za-z0-9+/]{43}=")),
    _Kind(
        "an Azure shared access signature",
        b"sig=",
        re.compile(
            rb"(?<![^?&;\"'\s])(?:"
            rb"se=20\d\d-[^\s\"'<>]{0,900}&sig=[A-Za-z0-9%+/]{40,130}(?:%3[dD]|=)"
            rb"|sig=[A-Za-z0-9%+/]{40,130}(?:%3[dD]|=)&[^\s\"'<>]{0,900}(?<=&)se=20\d\d-)"
        ),
    ),
    _Kind(
        "an Azure client secret",
        b"Q~",
        re.compile(rb"(?<![\w~.-])[A-Za-z0-9_~.-]{3}\dQ~[A-Za-z0-9_~.-]{31,34}(?![\w~.-])"),
    ),
    *(
        _Kind(
            "an AWS secret access key",
            fixed,
            re.compile(
                fixed + rb"[\"']?\s{0,9}[=:]\s{0,9}[\"']?(?![A-Za-z0-9/+]*EXAMPLE)[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])"
            ),
        )
        for fixed in (b"aws_secret_access_key", b"AWS_SECRET_ACCESS_KEY")
    ),
    _Kind("a GitHub token", b"ghp_", re.compile(rb"(?<!\w)ghp_[A-Za-z0-9]{36}(?!\w)")),
    _Kind("a GitHub token", b"github_pat_", re.compile(rb"(?<!\w)github_pat_[A-Za-z0-9_]{82}(?!\w)")),
)


class Finding(NamedTuple):
    """A credential in a file.

    Attributes:
        line: Counted from 1.
        kind: Such as ``a private key``.
    """

    line: int
    kind: str


class KeyMaterialSearch:
    """Searches a file block by block, also across the borders of the blocks.

    Attributes:
        finding: The first credential; None while there is none.
    """

    def __init__(self) -> None:
        self.finding: Finding | None = None
        self._lines_before = 0
        self._overlap = b""

    def look_at(self, block: bytes) -> None:
        """Search the next block of the file."""
        if self.finding is not None:
            return
        window = self._overlap + block if self._overlap else block
        first = min(
            (
                (match.start(), kind.name)
                for kind in _KINDS
                if kind.fixed in window and (match := kind.form.search(window))
            ),
            default=None,
        )
        if first is not None:
            self.finding = Finding(self._lines_before + window.count(b"\n", 0, first[0]) + 1, first[1])
        else:
            self._overlap = window[-OVERLAP:]
            self._lines_before += window.count(b"\n", 0, max(0, len(window) - OVERLAP))
