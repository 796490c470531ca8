"""The root of all errors: fields, a sentence about them, and how they travel."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Self


@dataclass(eq=False)
class DistlogError(Exception):
    """The root of all: catch it to catch everything that distlog raises on purpose."""

    reason: ClassVar[str] = "DISTLOG_ERROR"
    # A format string over the fields: what is wrong, then what to do.
    text: ClassVar[str] = "distlog failed"

    def __str__(self) -> str:
        return self.text.format_map(self.fields())

    def fields(self) -> dict[str, Any]:
        """Return the error's fields by name, in the order of their declaration."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def metadata(self) -> dict[str, str]:
        """Return the fields as strings, as they travel in google.rpc.ErrorInfo; None fields are left out."""
        return {name: str(value) for name, value in self.fields().items() if value is not None}

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> Self:
        """Rebuild the error from `metadata()`.  Missing fields take their type's zero: a newer peer may send fewer."""
        types = typing.get_type_hints(cls)
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            text = metadata.get(field.name)
            wanted = types[field.name]
            if wanted in (int, float, str):
                values[field.name] = wanted() if text is None else wanted(text)
            elif text is not None and wanted == int | None:
                values[field.name] = int(text)
            else:
                values[field.name] = text
        return cls(**values)
