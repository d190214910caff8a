"""What two topic filters have in common, which is again one filter, or nothing."""

from __future__ import annotations

from topicwarden.patterns.mqtt import Level, LevelPattern, Special


def meet(a: LevelPattern, b: LevelPattern) -> LevelPattern | None:
    """Return the filter of exactly the topics that both match; None when there are none.

    Takes filters without placeholders. Each level is the narrower of the two; `#` goes on where both have it.
    """
    levels: list[Level] = []
    fixed = [pattern.levels[:-1] if pattern.levels[-1] is Special.REST else pattern.levels for pattern in (a, b)]
    open_ends = [len(part) < len(pattern.levels) for part, pattern in zip(fixed, (a, b), strict=True)]
    length = max(map(len, fixed))
    if any(len(part) < length and not open_end for part, open_end in zip(fixed, open_ends, strict=True)):
        return None
    for number in range(length):
        one, other = (part[number] if number < len(part) else Special.ONE for part in fixed)
        if Special.NOTHING in (one, other):
            return None
        if one is Special.ONE:
            one, other = other, one
        if other is Special.ONE:
            # Wildcards at the first level do not stand for names that begin with `$`.
            if number == 0 and isinstance(one, str) and one.startswith("$"):
                return None
        elif one != other:
            return None
        levels.append(one)
    if all(open_ends):
        levels.append(Special.REST)
    text = "/".join(level if isinstance(level, str) else str(level.value) for level in levels)
    return LevelPattern(text, tuple(levels)) if levels else None
