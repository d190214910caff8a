from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np

from topicwarden.events import Action, Certainty, Outcome, Shape
from topicwarden.findings import data_dir
from topicwarden_collectors.mosquitto import ring_layout as layout

HEADER = data_dir("brokers") / "mosquitto" / "topicwarden_wire.h"
STRUCTS = {
    "tw_event": layout.EVENT,
    "tw_client": layout.CLIENT,
    "tw_topic": layout.TOPIC,
    "tw_more": layout.MORE,
    "tw_mark": layout.MARK,
    "tw_ring_header": layout.HEADER,
}
RENAMED = {
    "TW_RING_VERSION": layout.VERSION,
    "TW_RING_VERSION_OLDEST": layout.VERSION_OLDEST,
    "TW_RING_DATA_OFFSET": layout.DATA_OFFSET,
    "TW_UNKNOWN": Outcome.UNKNOWN,
    "TW_ALLOWED": Outcome.ALLOWED,
    "TW_DENIED": Outcome.DENIED,
    "TW_CERTAINTY_UNKNOWN": Certainty.UNKNOWN,
    "TW_INFERRED": Certainty.INFERRED,
    "TW_EXACT": Certainty.EXACT,
}


def ours(name: str) -> int:
    """The number we use for a constant of the header."""
    if name in RENAMED:
        return RENAMED[name]
    if name.startswith("TW_ACTION_"):
        return Action[name.removeprefix("TW_ACTION_")]
    if name.startswith("TW_SHAPE_"):
        return Shape[name.removeprefix("TW_SHAPE_")]
    return int(getattr(layout, name.removeprefix("TW_")))


def compiled(folder: Path, lines: list[str]) -> dict[str, int]:
    """Print each expression with the C compiler's own value."""
    source = folder / "print.c"
    prints = "\n".join(f'    printf("%s %lld\\n", "{line}", (long long)({line}));' for line in lines)
    source.write_text(
        f'#include <stdio.h>\n#include <stddef.h>\n#include "{HEADER}"\n'
        f"int main(void) {{\n{prints}\n    return 0;\n}}\n"
    )
    program = folder / "print"
    subprocess.run(["gcc", "-std=gnu11", "-Wall", "-Werror", "-o", program, source], check=True)
    output = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return {line.rsplit(" ", 1)[0]: int(line.rsplit(" ", 1)[1]) for line in output.splitlines()}


def test_every_constant_of_the_c_header_has_the_same_value_here(tmp_path: Path) -> None:
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    names = sorted(set(re.findall(r"\bTW_[A-Z0-9_]+\b", text)) - {"TW_RING_MAGIC"})
    assert len(names) > 50
    values = compiled(tmp_path, names)
    assert {name: ours(name) for name in names} == values
    magic = re.search(r'TW_RING_MAGIC "(.*?)"', text)
    assert magic is not None
    assert magic[1].encode().decode("unicode_escape").encode() == layout.MAGIC


def test_every_field_of_every_c_structure_is_where_our_arrays_look_for_it(tmp_path: Path) -> None:
    expected: dict[str, int] = {}
    for struct, dtype in STRUCTS.items():
        expected[f"sizeof(struct {struct})"] = dtype.itemsize
        assert dtype.fields is not None
        for field, (kind, offset, *_) in dtype.fields.items():
            expected[f"offsetof(struct {struct}, {field})"] = offset
            expected[f"sizeof(((struct {struct} *)0)->{field})"] = kind.itemsize
        # No byte of the structure is left out.
        assert sum(kind.itemsize for kind, *_ in dtype.fields.values()) == dtype.itemsize
    assert compiled(tmp_path, list(expected)) == expected


def test_the_numbers_of_the_ring_are_those_of_the_event_columns() -> None:
    assert Action(layout.ACTION_PUBLISH) is Action.PUBLISH
    assert Action(layout.ACTION_LAST) is Action(layout.ACTION_DELIVER) is Action.DELIVER
    assert Shape(layout.SHAPE_LAST) is max(Shape)
    assert Outcome(layout.OUTCOME_LAST) is max(Outcome)
    assert Certainty(layout.CERTAINTY_LAST) is max(Certainty)
    assert np.float32(layout.ENTROPY_MAX) / layout.ENTROPY_SCALE == 8
