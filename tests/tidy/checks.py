"""What must not stand in the source, each with what to do instead.

A check is a function from one file to the problems in it.  Every check has a planted violation in `test_checks.py`, so
that none of them can go blind.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70


@dataclass(frozen=True)
class Source:
    """One file: its path relative to the repository, with slashes, and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def is_python(self) -> bool:
        return self.path.endswith(".py")

    @property
    def is_product(self) -> bool:
        return self.path.startswith("distlog/")

    @property
    def is_test(self) -> bool:
        return self.path.startswith("tests/")

    def is_one_of(self, names: tuple[str, ...]) -> bool:
        """Tell whether this is one of `names` below distlog/: modules without suffix, or packages with a slash at the end."""
        name = self.path.removeprefix("distlog/").removesuffix(".py")
        return any(name == each or (each.endswith("/") and name.startswith(each)) for each in names)


Problems = Iterator[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Port:
    """A part of the standard library that only some modules may touch, so that a simulation can stand in for it."""

    name: str
    modules: tuple[str, ...]
    instead: str


# Names below distlog/.  The process and the command line hand out the real things.
ROOTS = ("serve", "logs", "config/", "cli/")
DISK = ("storage/disk",)
SYNCS = ("storage/kernel_sync",)
PROGRAMS = ("programs",)
CERTIFICATES = ("security/files", "security/rotated_file")

PORTS = (
    Port(
        "os",
        (*DISK, *SYNCS, *PROGRAMS, *CERTIFICATES, *ROOTS),
        "take a Disk, or the value as a parameter",
    ),
    Port("mmap", DISK, "take a Disk"),
    Port("ctypes", SYNCS, "find a library with wheels"),
    Port("fcntl", DISK, "take a Disk"),
    Port("pathlib", (*PROGRAMS, *ROOTS), "take a Disk and a path as text"),
    Port("shutil", ROOTS, "take a Disk"),
    Port("tempfile", (), "take a Disk and a path"),
    Port("io", ROOTS, "take a Disk"),
    Port("time", ("runtime", *ROOTS), "take a Clock"),
    Port("datetime", ("security/issue", *ROOTS), "take a Clock; keep milliseconds"),
    Port("secrets", ROOTS, "take the random bytes as a parameter"),
    Port("uuid", (), "take the random bytes as a parameter"),
    Port("threading", ("runtime", *ROOTS), "take a Worker"),
    Port("concurrent", ("runtime",), "take a Worker"),
    Port("multiprocessing", (), "start a node of its own"),
    Port("subprocess", PROGRAMS, "take Programs"),
    Port("socket", ("runtime", *PROGRAMS, *ROOTS), "take a Network"),
    Port("ssl", ("security/", *ROOTS), "take a Network"),
    Port("signal", ROOTS, "take a callback"),
    Port("pickle", (), "write an encoding: unpickling runs what a peer sends"),
    Port("marshal", (), "write an encoding"),
    Port("shelve", (), "write an encoding"),
    Port("pysyncobj", ("consensus/library",), "speak to distlog.consensus.raft"),
)

# Attributes of asyncio and of the event loop that reach the machine without an import of their own.
LOOP_PORTS = {
    "open_connection": "take a Network",
    "open_unix_connection": "take a Network",
    "start_server": "take a Network",
    "start_unix_server": "take a Network",
    "create_connection": "take a Network",
    "create_server": "take a Network",
    "to_thread": "take a Worker",
    "run_in_executor": "take a Worker",
}
# The same for other programs.
PROGRAM_PORTS = ("create_subprocess_exec", "create_subprocess_shell", "subprocess_exec")

# A generator of one's own cannot be seeded from outside; the class is needed as a type everywhere.
RANDOM_TYPE = "Random"


def ports(source: Source) -> Problems:
    """Time, randomness, threads, files and sockets are reached through their ports."""
    if not source.is_product:
        return
    for node, name in imported_names(source.tree):
        for port in PORTS:
            if name.partition(".")[0] == port.name and not source.is_one_of(port.modules):
                yield node.lineno, f"imports {name}: {port.instead}"
        if (
            name.partition(".")[0] == "random"
            and name != f"random.{RANDOM_TYPE}"
            and not source.is_one_of(ROOTS)
        ):
            yield (
                node.lineno,
                f"imports {name}: take a random.Random (from random import {RANDOM_TYPE})",
            )
    for node in ast.walk(source.tree):
        if (
            isinstance(node, ast.Attribute)
            and node.attr in LOOP_PORTS
            and not source.is_one_of(("runtime",))
        ):
            yield node.lineno, f"reaches {node.attr}: {LOOP_PORTS[node.attr]}"
        if (
            isinstance(node, ast.Attribute)
            and node.attr in PROGRAM_PORTS
            and not source.is_one_of(PROGRAMS)
        ):
            yield node.lineno, f"reaches {node.attr}: take Programs"
        if not isinstance(node, ast.Call):
            continue
        called = name_of(node.func)
        if called == RANDOM_TYPE and not source.is_one_of(ROOTS):
            yield node.lineno, "makes a Random: take one, so that a seed repeats a run"
        if (
            called == "open"
            and isinstance(node.func, ast.Name)
            and not source.is_one_of((*DISK, *PROGRAMS, *ROOTS))
        ):
            yield node.lineno, "opens a file: take a Disk"


@dataclass(frozen=True, slots=True)
class Word:
    """A pattern that stands nowhere in the repository's text, and what to write instead."""

    pattern: re.Pattern[str]
    instead: str


# The classes keep this file from finding its own patterns.
WORDS = (
    Word(re.compile(r"\b(TO[D]O|FIX[M]E|X[X]X|HA[C]K)\b"), "do it now, or open an issue"),
    Word(
        re.compile(r"(?<![\w.])/(wor[k]|hom[e]|roo[t])/"),
        "no path of one machine: make it relative, or a parameter",
    ),
    Word(re.compile(r"(?<![\w.])/tm[p]/"), "take pytest's tmp_path"),
    Word(
        re.compile(r"\b(DESIG[N]|STYL[E]|RAF[T]|PARIT[Y]|SPE[C])\.md\b"),
        "say it here: that page is not in this repository",
    ),
    Word(
        re.compile(r"\bDESIG[N] (section )?\d"), "say it here: that page is not in this repository"
    ),
    Word(re.compile(r"pragma: no cove[r]"), "test it, or remove it"),
    Word(
        re.compile(r"NotImplemente[d]Error"),
        "a Protocol says what is needed; everything else works",
    ),
)


def words(source: Source) -> Problems:
    """Nothing is left for later, and nothing names one person's machine."""
    for number, line in enumerate(source.text.splitlines(), 1):
        for word in WORDS:
            if found := word.pattern.search(line):
                yield number, f"says {found[0]!r}: {word.instead}"


def prints(source: Source) -> Problems:
    """Only the command line writes to a terminal."""
    if source.is_product and not source.is_one_of(("cli/",)):
        for node in calls(source.tree):
            if name_of(node.func) in ("print", "pprint", "input"):
                yield node.lineno, "prints: log it with fields, or return it"


# On the simulation's loop asyncio's time is virtual: a sleep takes none.
VIRTUAL_TIME = "tests/simulation/"


def sleeps(source: Source) -> Problems:
    """A test waits for what it waits for.  Giving way once, sleep(0), is no waiting; nor is it on virtual time."""
    if not source.is_test:
        return
    virtual = source.path.startswith(VIRTUAL_TIME)
    for node in calls(source.tree):
        if name_of(node.func) != "sleep" or (virtual and ast.unparse(node.func) == "asyncio.sleep"):
            continue
        argument = node.args[0] if node.args else None
        if not (isinstance(argument, ast.Constant) and argument.value == 0):
            yield node.lineno, "sleeps: wait for the event, with a deadline"


MOCKS = ("mock", "unittest", "pytest_mock")


def mocks(source: Source) -> Problems:
    """A fake behaves like the thing; a mock only like the test's idea of it."""
    if source.is_test:
        for node, name in imported_names(source.tree):
            if name.partition(".")[0] in MOCKS:
                yield node.lineno, f"imports {name}: write a fake"


def silences(source: Source) -> Problems:
    """A test that does not run says why."""
    if not source.is_test:
        return
    for node in calls(source.tree):
        name = name_of(node.func)
        if name in ("skip", "skipif", "xfail", "importorskip"):
            reasons = [each.value for each in node.keywords if each.arg == "reason"]
            reasons += node.args[:1] if name in ("skip", "xfail") else []
            if not reasons:
                yield node.lineno, f"{name} without a reason: say what is missing here"
    called = {call.func for call in calls(source.tree)}
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Attribute) or node in called or name_of(node.value) != "mark":
            continue
        if node.attr in ("skip", "xfail"):
            yield node.lineno, f"{node.attr} without a reason: say what is missing here"


VAGUE = {
    "util", "utils", "helper", "helpers", "common", "misc", "manager", "managers", "handler", "handlers", "base",
}  # fmt: skip
VAGUE_CLASS = re.compile(r"(Manager|Helper|Helpers|Utils|Util)$")


def names(source: Source) -> Problems:
    """A module or a class is named by what it is."""
    if not source.is_python:
        return
    for part in source.path.removesuffix(".py").split("/"):
        if vague := VAGUE.intersection(part.lower().split("_")):
            yield 1, f"{part} is named {vague.pop()}: name it by what it holds"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef) and VAGUE_CLASS.search(node.name):
            yield node.lineno, f"class {node.name}: name it by what it is"


def file_lengths(source: Source) -> Problems:
    """A file is read in one go; 400 lines are the aim."""
    count = len(source.text.splitlines())
    if source.is_python and count > FILE_LINES_MAX:
        yield (
            count,
            f"has {count} lines, and {FILE_LINES_MAX} are the limit: take out what stands on its own",
        )


# Longer than the limit on purpose: "path:name" and why splitting it would read worse.
LONG_FUNCTIONS: dict[str, str] = {}


def function_lengths(source: Source) -> Problems:
    """A function fits on a screen."""
    if not source.is_python:
        return
    for node, name in functions(source.tree):
        count = (node.end_lineno or node.lineno) - node.lineno + 1
        if count > FUNCTION_LINES_MAX and f"{source.path}:{name}" not in LONG_FUNCTIONS:
            yield (
                node.lineno,
                f"{name} has {count} lines, and {FUNCTION_LINES_MAX} are the limit: split it",
            )


def package_docstrings(source: Source) -> Problems:
    """A package says what it is for; every other module too."""
    if not source.is_product or not source.is_python:
        return
    if not ast.get_docstring(source.tree):
        yield (
            1,
            "has no docstring: say what it is for, what must hold, and what is absent on purpose",
        )


CHECKS: tuple[Callable[[Source], Problems], ...] = (
    ports,
    words,
    prints,
    sleeps,
    mocks,
    silences,
    names,
    file_lengths,
    function_lengths,
    package_docstrings,
)


def problems_of(source: Source) -> list[str]:
    """Return every problem of one file as `path:line problem`."""
    return [
        f"{source.path}:{line} {problem}"
        for check in CHECKS
        if source.is_python or check is words
        for line, problem in check(source)
    ]


def unused_test_directories(root: Path) -> list[str]:
    """Return the directories of Python files below `root` in which no test stands."""
    unused = []
    for directory in sorted({path.parent for path in root.rglob("*.py")} - {root}):
        tests = [
            name
            for path in directory.rglob("test_*.py")
            for _, name in functions(ast.parse(path.read_text("utf-8")))
            if name.rpartition(".")[2].startswith("test_")
        ]
        if not tests:
            unused.append(str(directory.relative_to(root)))
    return unused


def functions(
    tree: ast.AST, outer: str = ""
) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, str]]:
    """Yield every function with its qualified name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node, f"{outer}{node.name}"
        inner = (
            f"{outer}{node.name}."
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            else outer
        )
        yield from functions(node, inner)


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def name_of(node: ast.expr) -> str:
    """Return the last name of a dotted expression: `sleep` for `asyncio.sleep`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def imported_names(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    """Yield what absolute imports bring in, by full name: `random.Random` for `from random import Random`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                yield node, f"{node.module}.{alias.name}"
