"""Text files as people and their editors leave them."""

import codecs
from typing import Final

_MARKED: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks, which editors and shells of Windows write, with the encoding that each stands for."""


def decoded(content: bytes) -> str:
    """Return ``content`` as text: UTF-8, or UTF-16 if a byte order mark says so. Raises ValueError."""
    for mark, encoding in _MARKED:
        if content.startswith(mark):
            return content.decode(encoding)
    return content.decode()


def is_unicode(text: str) -> bool:
    """Return whether ``text`` can be written at all. A text from the environment that is not UTF-8 holds
    halves of surrogate pairs in place of its bytes.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
