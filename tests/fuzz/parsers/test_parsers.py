"""Every parser, with input that somebody means harm by: it is taken, or refused by the error that says so, and soon.

Half of the inputs are right but for one field: sizes, checksums and the encoding around it are put right again.  `make fuzz` gives
each parser 100,000 inputs; a parser of whole files gets fewer in a short run.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.fuzz.mutations import mutated
from tests.fuzz.parsers.files import file_parsers
from tests.fuzz.parsers.network import client_parsers, finding_parsers, peer_parsers
from tests.fuzz.parsers.parser import Parser, mutated_text
from tests.fuzz.parsers.security import security_parsers
from tests.fuzz.parsers.texts import argument_parsers, setting_parsers

# Inputs of a short run, for a parser of cost 1.
SHORT_COUNT = 1500
# Of one input, which is at most some hundred thousand bytes: a thousand times what a usual one takes.
PARSE_S_MAX = 2.0
MEMORY_SIZE_MAX = 1 << 30


@lru_cache(maxsize=1)
def parsers(directory: Path) -> dict[str, Parser[Any]]:
    return {
        parser.name: parser
        for parser in (
            *peer_parsers(),
            *client_parsers(),
            *finding_parsers(),
            *file_parsers(),
            *setting_parsers(directory),
            *argument_parsers(),
            *security_parsers(directory),
        )
    }


def made(parser: Parser[Any], source: Random) -> Any:
    """Return an input: half of them are right up to one field."""
    example = source.choice(parser.examples)
    if source.random() < 0.5:
        return parser.one_field(example, source)
    return mutated_text(example, source) if isinstance(example, str) else mutated(example, source)


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Let nothing take more than MEMORY_SIZE_MAX beyond what this process has: who tries fails."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + MEMORY_SIZE_MAX
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def is_taken(parser: Parser[Any], data: Any) -> bool:
    try:
        parser.parse(data)
    except parser.refusals:
        return False
    return True


def shown(data: Any) -> str:
    text = repr(data)
    return text if len(text) < 2000 else f"{text[:1000]} ... {text[-200:]} ({len(data)})"


# A certificate with a serial number below 1 is read, which its library does not like; a model is an expression of Python.
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_every_parser_takes_or_refuses_whatever_it_is_given(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    inputs = int(request.config.getoption("--inputs"))
    first = int(request.config.getoption("--first-seed"))
    found: list[str] = []
    with bounded_memory():
        for parser in parsers(tmp_path).values():
            count = inputs or max(50, SHORT_COUNT // parser.cost)
            assert any(map(partial(is_taken, parser), parser.examples)), parser.name
            began = time.process_time()
            refused, problem = given(parser, range(first, first + count))
            elapsed = time.process_time() - began
            print(f"{parser.name:50} {count:7} inputs {refused:7} refused {elapsed:7.1f} s")
            if problem:
                found.append(problem)
            elif parser.refusals and parser.cost == 1 and not refused:
                found.append(f"{parser.name}: nothing is refused")
    assert not found, "\n".join(found)


def given(parser: Parser[Any], seeds: range) -> tuple[int, str]:
    """Return how many inputs a parser refused, and the first that it neither took nor refused, or not soon."""
    refused = 0
    for seed in seeds:
        data = made(parser, Random(f"{parser.name} {seed}"))
        started = time.process_time()
        try:
            parser.parse(data)
        except parser.refusals:
            refused += 1
        except Exception as error:
            return refused, f"{parser.name}, seed {seed}: {error!r:.300} for {shown(data)}"
        spent = time.process_time() - started
        if spent > PARSE_S_MAX:
            return refused, f"{parser.name}, seed {seed}: {spent:.1f} s for {shown(data)}"
    return refused, ""
