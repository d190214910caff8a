"""Topics and filters drawn from so few levels that they meet often."""

from __future__ import annotations

from hypothesis import strategies as st

NAMES = ("", "a", "b", "$a", "$SYS", "%u", "é")


@st.composite
def topics(draw: st.DrawFn, max_levels: int = 5) -> str:
    """A valid topic name."""
    levels = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=max_levels).filter(lambda x: x != [""]))
    return "/".join(levels)


@st.composite
def filters(draw: st.DrawFn, placeholders: bool = False, max_levels: int = 5, names: tuple[str, ...] = NAMES) -> str:
    """A valid topic filter; without placeholders, `%u` in it is an ordinary level."""
    special = ["+", "+", "%u", "%c"] if placeholders else ["+", "+"]
    levels = draw(st.lists(st.sampled_from([*names, *special]), min_size=0, max_size=max_levels))
    if draw(st.booleans()) or levels in ([], [""]):
        levels = [*levels, "#"]
    return "/".join(levels)
