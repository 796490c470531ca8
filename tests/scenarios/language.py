"""The language of the scenario files: what happens to a cluster, and below a line of dashes what is then to be seen.

    # A sentence that says what is promised.
    nodes a b c ; produce 20 ; settle
    ----
    produce 20: offsets [0, 20)
    leader a | up a b c | logs identical [0, 20)

Blocks are separated by an empty line.  Commands are separated by semicolons; their words are these, and no others:

    nodes NAME...                   start a cluster of these nodes; the first one leads.  Always the first command, and only there
    produce COUNT [of SIZE] [within SECONDS]    as a client: to whoever leads, again after a refusal
    try NODE                        one append at one node, once
    read NODE OFFSET                one record at one node
    power-cut NODE... | kill NODE... | stop NODE... | start NODE... | wipe NODE
    pause NODE... | resume NODE... | cut-off NODE... | heal | fill NODE... | free NODE... | slow NODE...
    join NAME...                    start new nodes with --join, or wiped ones; remove NODE: as an operator, whoever leads
    transfer [NODE]                 hand leadership over
    wait SECONDS                    let time pass
    settle                          until all nodes that run have applied the same
"""

from __future__ import annotations

from dataclasses import dataclass, field

DASHES = "----"
# What may follow each word: the number of arguments at least and at most, None for any.
COMMANDS: dict[str, tuple[int, int | None]] = {
    "nodes": (1, None),
    "produce": (1, 5),
    "try": (1, 1),
    "read": (2, 2),
    "power-cut": (1, None),
    "kill": (1, None),
    "stop": (1, None),
    "start": (1, None),
    "wipe": (1, 1),
    "pause": (1, None),
    "resume": (1, None),
    "cut-off": (1, None),
    "heal": (0, 0),
    "fill": (1, None),
    "free": (1, None),
    "slow": (1, None),
    "join": (1, None),
    "remove": (1, 1),
    "transfer": (0, 1),
    "wait": (1, 1),
    "settle": (0, 0),
}
# Commands whose arguments are names of nodes.
NAMING = frozenset(COMMANDS) - {"nodes", "join", "produce", "read", "wait"}


class ScenarioInvalid(Exception):
    """The file is not in the language; says where and why."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its words."""

    line: int
    word: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join((self.word, *self.arguments))

    def fail(self, problem: str) -> ScenarioInvalid:
        return ScenarioInvalid(f"line {self.line}, {str(self)!r}: {problem}")

    def number(self, place: int) -> int:
        """Return an argument as a number.  Raises ScenarioInvalid."""
        text = self.arguments[place]
        if not text.isdecimal():
            raise self.fail(f"{text!r} is not a number")
        return int(text)

    def options(self, first: int, names: tuple[str, ...]) -> dict[str, int]:
        """Return the pairs of a name and a number from an argument on.  Raises ScenarioInvalid."""
        options: dict[str, int] = {}
        for place in range(first, len(self.arguments), 2):
            name = self.arguments[place]
            if name not in names or name in options or place + 1 == len(self.arguments):
                raise self.fail(f"after {name!r}: expected one of {', '.join(names)}, and a number")
            options[name] = self.number(place + 1)
        return options


@dataclass(slots=True)
class Block:
    """Some commands, and what is seen after them."""

    comments: list[str] = field(default_factory=list)
    # As they are written, for a rewrite.
    source: list[str] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)


def parse(text: str) -> list[Block]:
    """Return the blocks of a scenario.  Raises ScenarioInvalid."""
    blocks: list[Block] = []
    block, is_below = Block(), False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        line = line.strip()
        if not line:
            if block.source and not is_below:
                raise ScenarioInvalid(f"line {number}: the block has no line of dashes")
            if block.source:
                blocks.append(block)
                block, is_below = Block(), False
        elif line == DASHES:
            if is_below or not block.commands:
                raise ScenarioInvalid(f"line {number}: dashes, and no commands above them")
            is_below = True
        elif is_below:
            block.expected.append(line)
        elif line.startswith("#"):
            block.comments.append(line)
        else:
            block.source.append(line)
            block.commands += [_command(number, part) for part in line.split(";")]
    _check(blocks)
    return blocks


def _command(line: int, text: str) -> Command:
    words = text.split()
    if not words:
        raise ScenarioInvalid(f"line {line}: an empty command")
    command = Command(line, words[0], tuple(words[1:]))
    if command.word not in COMMANDS:
        raise command.fail(f"{command.word!r} is no command; there are {', '.join(COMMANDS)}")
    least, most = COMMANDS[command.word]
    if len(command.arguments) < least or (most is not None and len(command.arguments) > most):
        raise command.fail("too many or too few words")
    return command


def _check(blocks: list[Block]) -> None:
    """Raise ScenarioInvalid unless the cluster is made first, and once, and only its nodes are named."""
    commands = [command for block in blocks for command in block.commands]
    if not commands or commands[0].word != "nodes":
        raise ScenarioInvalid("a scenario begins with: nodes NAME...")
    if not blocks[0].comments:
        raise ScenarioInvalid("a scenario begins with a comment that says what is promised")
    names = set(commands[0].arguments)
    for command in commands[1:]:
        if command.word == "nodes":
            raise command.fail("there is a cluster already")
        if command.word == "join":
            names.update(command.arguments)
        named = command.arguments if command.word in NAMING else ()
        if command.word == "read":
            named = command.arguments[:1]
        for name in named:
            if name not in names:
                raise command.fail(f"there is no node {name!r}")


def rendered(blocks: list[Block]) -> str:
    """Return the text of a scenario."""
    parts = [
        "\n".join((*block.comments, *block.source, DASHES, *block.expected)) for block in blocks
    ]
    return "\n\n".join(parts) + "\n"
