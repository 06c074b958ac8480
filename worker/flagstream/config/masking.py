"""Takes values that must not be shown out of texts that quote them."""

import re
from collections.abc import Iterable

MASK = "**********"
"""As pydantic shows a secret."""

_QUOTED = re.compile(r'"([^"]+?) \.\.\.|"([^"]+?)…?"')
_SHORTEST_PART = 3
"""Characters: a shorter value is not a secret, nor a useful part of one, but a word of any
message."""
_PLAIN_WORDS = frozenset({"true", "false"})
"""They reveal nothing, and stand in every record."""
_SHORT = 8
"""Characters: a shorter value is masked only where it stands as a word, or the text would fall to pieces."""


class Mask:
    """Masks ``values`` in texts: whole wherever they stand, and the parts of them that a text quotes."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        hidden = {
            value
            for value in values
            if len(value.strip()) >= _SHORTEST_PART and value.lower() not in _PLAIN_WORDS
        }
        self._values = sorted(hidden, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return ``text``, a message, without the values, and without what it quotes of them."""
        return _QUOTED.sub(self._part, self.whole(text)) if self._values else text

    def whole(self, text: str) -> str:
        """Return ``text`` without the values; quotes in it mean something else than in a message."""
        for value in self._values:
            for form in dict.fromkeys((value, repr(value)[1:-1], value.strip())):
                text = self._without(form, text)
        return text

    @staticmethod
    def _without(value: str, text: str) -> str:
        if len(value) >= _SHORT:
            return text.replace(value, MASK)
        return re.sub(rf"(?<![A-Za-z0-9]){re.escape(value)}(?![A-Za-z0-9])", MASK, text)

    def _part(self, quoted: re.Match[str]) -> str:
        part = quoted[1] or quoted[2]
        if len(part) >= _SHORTEST_PART and any(part in value for value in self._values):
            return f'"{MASK}"'
        return quoted[0]
