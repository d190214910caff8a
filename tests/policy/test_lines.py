"""Where the parts of a policy stand in its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from topicwarden.policy import load_policy, load_policy_with_lines

TEXT = """\
# what sensors may do
topicwarden: 1
roles:
  sensor:
    members:
      - user: "sensor-*"
        vhost: v
    publish:
      - {topic: a}
      - topic: b
        rate: 5/s
  other:
    members: &who [{user: x}]
  third:
    members: *who
"""


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ((), 2),
        (("roles",), 3),
        (("roles", "sensor"), 4),
        (("roles", "sensor", "members", 0, "vhost"), 7),
        (("roles", "sensor", "publish", 1), 10),
        (("roles", "sensor", "publish", 1, "rate"), 11),
        (("roles", "sensor", "publish", 1, "burst"), 10),
        (("roles", "sensor", "publish", 7), 8),
        (("roles", "third", "members", 0, "user"), 13),
        (("exceptions", 0), 2),
    ],
)
def test_what_is_not_written_has_the_line_of_what_is_around_it(
    tmp_path: Path, where: tuple[str | int, ...], line: int
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(TEXT)
    policy, lines = load_policy_with_lines(file)
    assert policy == load_policy(file)
    assert lines.file == str(file)
    assert lines.of(*where) == line
