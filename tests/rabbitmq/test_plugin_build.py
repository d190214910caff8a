"""The plugin is built from its sources by Erlang's own tools, and what goes wrong is said."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from topicwarden.errors import ObservationError
from topicwarden_collectors.rabbitmq import plugin_build


def test_the_archive_has_every_module_in_the_folder_it_is_named_after(tmp_path: Path) -> None:
    built = plugin_build.build_plugin(tmp_path)
    assert built == tmp_path / "topicwarden_audit-0.1.0.ez"
    names = zipfile.ZipFile(built).namelist()
    assert {name.partition("/")[0] for name in names} == {"topicwarden_audit-0.1.0"}
    modules = {path.stem for path in (plugin_build.sources() / "src").glob("*.erl")}
    assert {Path(name).stem for name in names if name.endswith(".beam")} == modules
    assert "topicwarden_audit-0.1.0/ebin/topicwarden_audit.app" in names


def test_modules_that_channels_and_connections_call_are_not_unloaded_with_the_plugin() -> None:
    source = plugin_build.sources() / "src"
    resident = (
        (source / "topicwarden_audit_keeper.erl").read_text().partition("-define(RESIDENT, [")[2].partition("]")[0]
    )
    listed = (source / "topicwarden_audit.app.src").read_text().partition("{modules, [")[2].partition("]")[0]
    modules = {path.stem for path in source.glob("*.erl")}
    stays = {name.strip() for name in resident.split(",")}
    goes = {name.strip() for name in listed.split(",")}
    assert stays | goes == modules
    assert not stays & goes


def test_a_mistake_is_reported_in_the_compilers_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "rabbitmq"
    shutil.copytree(plugin_build.sources(), broken)
    with (broken / "src" / "topicwarden_audit_wire.erl").open("a") as source:
        source.write("unused() -> ok.\n")
    monkeypatch.setattr(plugin_build, "sources", lambda: broken)
    with pytest.raises(ObservationError, match="function unused/0 is unused"):
        plugin_build.build_plugin(tmp_path / "out")


def test_without_rabbitmq_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_PLUGINS", str(tmp_path))
    with pytest.raises(ObservationError, match="no headers of RabbitMQ"):
        plugin_build.build_plugin(tmp_path / "out")
