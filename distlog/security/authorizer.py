"""May this subject do this to that topic: the policy that is in force, asked once for each question and remembered.

    policy (replicated, or a file) -> replace -> Decider -> cache -> is_allowed
                                         |
                                         +-> `changed`: open streams are asked again

Until a policy was given nobody may do anything that has to be asked for: a node that has just started does not know yet what the
others have agreed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from distlog.errors import NoLeader
from distlog.security.deciding import Decider, PolicyDecider
from distlog.security.policy import NO_POLICY, Action

# Answers that are remembered, about 300 bytes each; the oldest goes first.
ANSWER_COUNT_MAX = 10_000
UNKNOWN_RETRY_DELAY_S = 0.5

Question = tuple[str, Action, str]


class Authorizer:
    """The policy in force on one node."""

    def __init__(
        self,
        decider: Decider | None = None,
        *,
        administrators: Iterable[str] = (),
        file: str = "",
    ) -> None:
        """decider: the policy to begin with; None: it is not known yet.

        administrators: subjects that may do everything whatever the policy says, so that nobody is locked out for ever.
        file: where the policy comes from; "": the cluster has agreed on it.
        """
        self._decider = decider
        self.administrators = frozenset(administrators)
        self.file = file
        self._answers: dict[Question, bool] = {}
        # Called when another policy came into force.
        self.changed: list[Callable[[], None]] = []

    @classmethod
    def open_to_all(cls) -> Authorizer:
        """Return one without a policy."""
        return cls(PolicyDecider(NO_POLICY))

    @property
    def is_known(self) -> bool:
        return self._decider is not None

    @property
    def is_open(self) -> bool:
        """Tell whether there is no policy, and everybody may do everything."""
        return self._decider is not None and self._decider.is_empty

    @property
    def answer_count(self) -> int:
        """How many answers are remembered."""
        return len(self._answers)

    def replace(self, decider: Decider) -> None:
        """Put another policy into force, at once: what was remembered is forgotten, and open streams are asked again."""
        self._decider = decider
        self._answers.clear()
        for callback in self.changed:
            callback()

    def is_allowed(self, subject: str, action: Action, topic: str) -> bool:
        """Tell whether `subject` may do `action` to `topic`, ANY for the cluster itself.

        Raises NoLeader while the policy is not known.
        """
        question = (subject, action, topic)
        answer = self._answers.get(question)
        if answer is None:
            answer = self._decide(question)
            # Of what was written by whoever asks, only so much is kept.
            if len(self._answers) >= ANSWER_COUNT_MAX:
                del self._answers[next(iter(self._answers))]
            self._answers[question] = answer
        return answer

    def topics(self, subject: str, action: Action) -> Iterator[str]:
        """Yield the patterns of the topics to which `subject` may perhaps do `action`: ask about each."""
        if self._decider is not None:
            yield from self._decider.topics(subject, action)

    def _decide(self, question: Question) -> bool:
        subject, action, topic = question
        if subject in self.administrators:
            return True
        if self._decider is None:
            problem = "this node does not know yet who may do what"
            raise NoLeader(problem=problem, retry_delay_s=UNKNOWN_RETRY_DELAY_S)
        return self._decider.is_empty or self._decider.decide(subject, action, topic)
