"""agent_user_mappings.json as people have it: whole, in other shapes, damaged, another file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from letta_matrix.agents.migration import mappings_file
from letta_matrix.agents.migration.mappings_file import NoMappings, OldMapping, read_mappings

ENTRY = {
    "agent_id": "agent-1",
    "agent_name": "Ada",
    "matrix_user_id": "@agent_1:test",
    "matrix_password": "sesame",
    "created": True,
    "room_id": "!1:test",
    "room_created": True,
    "later": {"unknown": [1]},
}
ADA = OldMapping(1, "agent-1", "Ada", "@agent_1:test", "!1:test", "sesame")


def read(tmp_path: Path, text: str | bytes) -> tuple[list[OldMapping], list[str]]:
    file = tmp_path / "agent_user_mappings.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_mappings(file)


@pytest.mark.parametrize("data", [{"agent-1": ENTRY}, [ENTRY]], ids=["object", "list"])
def test_both_shapes_are_read(tmp_path: Path, data: object) -> None:
    assert read(tmp_path, json.dumps(data)) == ([ADA], [])
    assert read(tmp_path, b"\xef\xbb\xbf" + json.dumps(data).encode()) == ([ADA], [])


def test_what_is_missing_is_empty(tmp_path: Path) -> None:
    data = {"agent-1": {"room_id": None}, "agent-2": {"agent_name": ""}}
    assert read(tmp_path, json.dumps(data)) == (
        [OldMapping(1, "agent-1"), OldMapping(2, "agent-2")],
        [],
    )


def test_a_name_that_is_there_twice_is_two_entries(tmp_path: Path) -> None:
    text = '{"a": {"room_id": "!1:test"}, "a": {"room_id": "!2:test"}}'
    found, _ = read(tmp_path, text)
    assert [one.room_id for one in found] == ["!1:test", "!2:test"]


def test_no_password_is_ever_shown(tmp_path: Path) -> None:
    assert "sesame" not in repr(ADA)
    bad = {"agent-1": {**ENTRY, "room_id": 5}}
    assert "sesame" not in str(read(tmp_path, json.dumps(bad)))
    with pytest.raises(NoMappings) as caught:
        read(tmp_path, '{"agent-1": {"matrix_password": "sesame" "x"}}')
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (5, "expected an object"),
        ({"room_id": ["!1:test"]}, "room_id: expected a text"),
        ({"matrix_user_id": "ada"}, "its matrix_user_id is no user id"),
        ({"matrix_user_id": "@ada:test\x1b[2J"}, "its matrix_user_id is no user id"),
        ({"room_id": "#ada:test"}, "its room_id is no room id"),
        ({"room_id": "!a/../b:test"}, "its room_id is no room id"),
        ({"agent_id": "agent-9"}, "another agent_id than the one that it is filed under"),
    ],
)
def test_an_entry_that_is_none_is_told_of_and_the_others_count(
    tmp_path: Path, entry: object, fault: str
) -> None:
    found, faults = read(tmp_path, json.dumps({"bad": entry, "agent-1": ENTRY}))
    assert found == [replace(ADA, place=2)]
    assert len(faults) == 1
    assert faults[0].startswith("entry 1 (bad): ")
    assert fault in faults[0]


def test_an_id_of_an_agent_that_is_none(tmp_path: Path) -> None:
    found, faults = read(tmp_path, json.dumps([{"room_id": "!1:test"}, {"agent_id": "a\nb"}]))
    assert found == []
    assert faults == [
        "entry 1: it does not say whose it is (agent_id)",
        "entry 2: its agent_id is no id of an agent",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is empty"),
        ('{"agent-1": {"agent_id": "agen', "ends in the middle (line 1)"),
        ('{"agent-1": {"agent_id": "agent-1"},\n', "ends in the middle (line 2)"),
        ("<html>", "is not valid JSON: Expecting value (line 1, column 1)"),
        ('"x"', "expected an object with an entry for each agent"),
        ('{"name": "letta", "version": "1"}', "is it another file?"),
        ("[" * 100_000, "nested too deeply"),
        (b"\xff\xfe", "is not text in UTF-8"),
        ('{"a": ' + "9" * 5000 + "}", "a number with thousands of digits"),
    ],
)
def test_files_that_hold_no_mappings(tmp_path: Path, text: str | bytes, fault: str) -> None:
    with pytest.raises(NoMappings) as caught:
        read(tmp_path, text)
    assert fault in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoMappings, match="no such file"):
        read_mappings(tmp_path)
    monkeypatch.setattr(mappings_file, "_LARGEST", 10)
    with pytest.raises(NoMappings, match="no agent_user_mappings"):
        read(tmp_path, json.dumps([ENTRY]))
