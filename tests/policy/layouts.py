"""Policies written in many ways, by what is special about them."""

from __future__ import annotations

from typing import Final

ONE: Final = "{finding: TW101, client: a, reason: r, until: 2030-01-01}"
TWO: Final = "{finding: TW102, client: a, reason: r, until: 2030-01-01}"
_BLOCK_SCALAR: Final = """\
topicwarden: 1
exceptions:
- finding: TW101
  client: a
  until: 2030-01-01
  reason: |
    some

    text


# note
payload: {}
"""
_KEPT_SCALAR: Final = f"""\
topicwarden: 1
exceptions:
- {ONE}
- finding: TW102
  client: a
  until: 2030-01-01
  reason: >+
    some
    text

"""
_COMMENTS: Final = f"""\
topicwarden: 1 # v
exceptions: # note - a
  # - one
  - {ONE} # why
  # - two

payload: {{}} # p
"""
SPACES: Final = "   "
_LINES: Final = f"""\
topicwarden: 1
exceptions:
  -
    finding: TW101
    client: a # a-b
    reason: two
      lines
    until: 2030-01-01
  - finding: TW102
    client: a
    reason: 'quoted''

      text'
    until: 2030-01-01{SPACES}


"""
_BRACKETS: Final = f"""\
topicwarden: 1
exceptions: [
  {ONE}, # one
  {TWO} # two
]
payload: {{}}
"""
_QUOTED: Final = """\
topicwarden: 1
"exceptions":
  - {finding: TW101, client: a, reason: "é\\u202e", until: 2030-01-01}
"""
LAYOUTS: Final = {
    "no section": "topicwarden: 1\n",
    "no section, no line break at the end": "topicwarden: 1",
    "a comment at the end": "topicwarden: 1\n# the end\n",
    "document markers": "%YAML 1.1\n---\ntopicwarden: 1\n...\n# behind\n",
    "an indented policy": "  topicwarden: 1\n  roles: {}\n",
    "a block scalar before": _BLOCK_SCALAR,
    "a kept block scalar at the end": _KEPT_SCALAR,
    "a section": f"topicwarden: 1\nexceptions:\n  - {ONE}\n",
    "a section without a line break at the end": f"topicwarden: 1\nexceptions:\n  - {ONE}",
    "a section with comments": _COMMENTS,
    "a section that is not indented": f"topicwarden: 1\nexceptions:\n- {ONE}\npayload: {{}}\n",
    "entries of several lines": _LINES,
    "a list in brackets": f"topicwarden: 1\nexceptions: [{ONE}, ]\n",
    "a list in brackets over lines": _BRACKETS,
    "an empty list": "topicwarden: 1\nexceptions: [ ] # none\n",
    "anchors": f"topicwarden: 1\nexceptions: &all\n  - &one {ONE}\n  - {TWO}\n",
    "a quoted key": _QUOTED,
}
