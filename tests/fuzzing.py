"""What files look like that somebody damaged: seeded mutations of a sound one, towards what parsers trip over."""

from __future__ import annotations

import random
from typing import Final

_SPLICES: Final = (
    "\t", "\0", "\ufeff", "&a [*a, *a]", "&a ", "*a ", "!!python/object:os.system ", "{{", "}", "'", '"', "\u2028", ": ",
    "- ", "\n", "%", "../../", "\ud800", "|\n", "? ", "1e999", "-.inf", "<<: *a", "null", "[" * 500, "&x {y: *x}", "-r ",
    "-r requirements.txt\n", "-c /dev/zero\n", "${HOME}", "git+ssh://x@y/z", "==", ";", "\\\n", "::", "=" * 9, "/" + "a" * 300,
)  # fmt: skip


def damaged(text: str, dice: random.Random) -> bytes:
    """One to three insertions, deletions, random bytes or repetitions."""
    content = bytearray(text.encode())
    for _ in range(dice.randrange(1, 4)):
        at = dice.randrange(len(content) + 1)
        match dice.randrange(4):
            case 0:
                content[at:at] = dice.choice(_SPLICES).encode("utf-8", "surrogatepass")
            case 1:
                del content[at : at + dice.randrange(1, 12)]
            case 2:
                content[at:at] = bytes(dice.randrange(256) for _ in range(3))
            case _:
                start = dice.randrange(len(content) + 1)
                content[at:at] = content[start : start + 20]
    return bytes(content)
