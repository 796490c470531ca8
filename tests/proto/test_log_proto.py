"""The proto file: its generated code is up to date, and what is on the wire never changes its meaning."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

from distlog.api.log.v1 import log_pb2

ROOT = Path(__file__).parents[2]
FIELDS = Path(__file__).parent / "fields.txt"


@pytest.fixture
def generate() -> ModuleType:
    """The script that `make proto` runs."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "proto" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_code_is_up_to_date(generate: ModuleType) -> None:
    assert generate.main(["--check"]) == 0


def test_generated_code_that_was_edited_is_found_and_repaired(
    generate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate.main([], tmp_path) == 0
    edited = tmp_path / "log" / "v1" / "log_pb2.pyi"
    edited.write_text(edited.read_text() + "# edited\n")
    assert generate.main(["--check"], tmp_path) == 1
    printed = capsys.readouterr().out
    assert "-# edited" in printed
    assert "run `make proto`" in printed
    assert generate.main([], tmp_path) == 0
    assert generate.main(["--check"], tmp_path) == 0


def test_generated_code_does_not_bind_its_users_to_the_generators_version(
    generate: ModuleType,
) -> None:
    with pytest.raises(SystemExit, match="adapt REPLACEMENTS"):
        generate.adapt("if GRPC_GENERATED_VERSION > installed: raise RuntimeError", "log.proto")


def described_fields() -> str:
    """Return one line for each field and enum value, sorted by message, in the order of the numbers."""
    file = FileDescriptorProto()
    log_pb2.DESCRIPTOR.CopyToProto(file)
    lines = []
    for message in sorted(file.message_type, key=lambda message: message.name):
        for field in sorted(message.field, key=lambda field: field.number):
            label = FieldDescriptorProto.Label.Name(field.label).removeprefix("LABEL_").lower()
            # Presence is the meaning of "not given", so it may not change either.
            words = [label] if label == "repeated" else ["optional"] * field.proto3_optional
            type_name = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
            words.append(field.type_name.removeprefix(".") or type_name)
            lines.append(f"{message.name}.{field.name} = {field.number} {' '.join(words)}")
    for enum in file.enum_type:
        lines.extend(f"{enum.name}.{value.name} = {value.number}" for value in enum.value)
    return "\n".join(lines) + "\n"


def test_field_numbers_and_types_are_what_they_were() -> None:
    """A field may be added to fields.txt; a line of it never changes, since old clients and stored records rely on it."""
    assert described_fields() == FIELDS.read_text()
