"""The contest: open every arm in its own process, check the output, time them in turns."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

from ..errors import CheckFailedError, ExecutionError, SpecError
from .arm import OURS, ArmSpec, Array
from .entrant import Entrant, Question, check_answer
from .order import LEAST_ROUNDS, Mode, Turn, orders, paced_turn, saturated_turn
from .process import ArmError, ArmProcess

WARM_UP = 3
TRIAL_ROUNDS = 3
MIN_SAMPLES, MAX_SAMPLES = 20, 2000
RATE_HZ = 30.0

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds after which an arm counts as hanging: while it opens, in its first call, later."""

    open_s: float = 180.0
    first_s: float = 120.0
    call_s: float = 60.0


class Contest:
    """Arms in processes of their own: ``with Contest(...) as contest``, then check, then rounds.

    The arms share nothing but the machine: no thread pool, no allocator, no interpreter. A process
    whose turn it is not sleeps.

    Owns: the processes. They end with the ``with``, and also if this process is killed.

    Args:
        specs: What to open, in this order; every name once.
        image: (N, C, H, W), what the arms are asked.
        reference_logits: (N, K), what arms of the same network must answer.
        questions: Arms that are asked something else.
        required: Arms that cannot be left out: what keeps them from running is raised.
        limits: When an arm counts as hanging.
        on_stage: Called with what is being done, for progress.

    Attributes:
        entrants: The arms that are open, by name.
        left_out: The arms that are not, and why.
        calls: Timed calls of each turn in the last rounds: samples i * calls to (i + 1) * calls
            are of round i.
        asked: The arm that was asked last, which is the one that an error of ``check`` or
            ``rounds`` is about.
        late: How often a call was due while the one before still ran, in the last rounds. Such a
            call is left out, as of a camera whose picture nobody takes.
    """

    def __init__(
        self,
        specs: Sequence[ArmSpec],
        image: Array,
        reference_logits: Array | None,
        *,
        questions: Mapping[str, Question] | None = None,
        required: Collection[str] = (OURS,),
        limits: Limits | None = None,
        on_stage: Progress = lambda text: None,
    ) -> None:
        names = [spec.name for spec in specs]
        if len(set(names)) < len(names):
            raise SpecError(f"contest: got arms {names}, expected every name once.")
        self._specs = tuple(specs)
        self._question = Question(image=image, logits=reference_logits)
        self._questions, self._required = dict(questions or {}), frozenset(required)
        self._limits, self._on_stage = limits or Limits(), on_stage
        self._processes: dict[str, ArmProcess] = {}
        self._medians_ms: dict[str, float] = {}
        self.entrants: dict[str, Entrant] = {}
        self.left_out: dict[str, str] = {}
        self.late: dict[str, int] = {}
        self.asked: str | None = None
        self.calls = 1

    def __enter__(self) -> Contest:
        """Open the arms, one after the other.

        Raises:
            CheckFailedError: An arm found while it was opened that it computes something else.
            ParnetDeployError: A required arm cannot be opened.
        """
        with ExitStack() as undo:
            undo.callback(self._kill)
            for spec in self._specs:
                self._on_stage(f"opening {spec.name}")
                self._open(spec)
            undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                for process in self._processes.values():
                    process.ask_to_close()
        finally:
            self._kill()

    def check(self) -> None:
        """Ask every arm and compare the answer; warm it up, and compare again.

        An arm that fails to answer is left out, unless it is required.

        Raises:
            CheckFailedError: An arm computes something else. Nothing was timed.
            ParnetDeployError: A required arm cannot run.
        """
        for name, entrant in list(self.entrants.items()):
            self._on_stage(f"checking the output of {name}")
            self.asked = name
            question, process = self._questions.get(name, self._question), self._processes[name]
            limits = self._limits
            try:
                first_ms, first = process.ask("first", question.image, limit_s=limits.first_s)
                entrant.check = check_answer(entrant, first, question)
                again, memory_mib = process.ask("warm_up", WARM_UP, limit_s=limits.call_s * WARM_UP)
                check_answer(entrant, again, question)
            except ArmError as error:
                self._leave_out(name, error)
            else:
                entrant.first_ms, entrant.memory_mib = first_ms, memory_mib

    def rounds(
        self,
        mode: Mode,
        n: int | None = None,
        budget_s: float = 20.0,
        rate_hz: float = RATE_HZ,
    ) -> dict[str, list[float]]:
        """Let every arm have its turn in each round, in a new order each time.

        Saturated: calls follow each other at once, those of different arms in turn. Paced: calls
        begin ``rate_hz`` times a second and the machine rests in between, as between requests.

        Args:
            mode: Which of the two.
            n: Rounds; None: as many as fit into the budget, within ``MIN_SAMPLES`` and
                ``MAX_SAMPLES`` of each arm, and ``LEAST_ROUNDS`` at least.
            budget_s: Seconds.
            rate_hz: Of the paced mode.

        Returns: Milliseconds of each call by arm, in the order in which they were made.

        Raises:
            ExecutionError: An arm failed or died.
        """
        if not self._medians_ms:
            self._on_stage("trial rounds")
            trial, _ = self._run(TRIAL_ROUNDS, Turn())
            self._medians_ms = {name: median(samples) for name, samples in trial.items()}
        turn = saturated_turn(self._medians_ms) if mode == "saturated" else paced_turn(rate_hz)
        if n is None:
            round_ms = sum(turn.expected_ms(value) for value in self._medians_ms.values())
            least = max(LEAST_ROUNDS, math.ceil(MIN_SAMPLES / turn.calls))
            most = MAX_SAMPLES // turn.calls
            n = min(max(int(budget_s * 1e3 / round_ms), least), most)
        samples, self.late = self._run(n, turn, f"{mode}: ")
        self.calls = turn.calls
        return samples

    def _run(
        self, rounds: int, turn: Turn, title: str | None = None
    ) -> tuple[dict[str, list[float]], dict[str, int]]:
        samples: dict[str, list[float]] = {name: [] for name in self.entrants}
        late = dict.fromkeys(samples, 0)
        limit_s = (turn.lead + turn.calls) * (self._limits.call_s + (turn.period_s or 0))
        for done, order in enumerate(orders(list(samples), rounds), 1):
            for name in order:
                self.asked = name
                try:
                    spent_ns, missed = self._processes[name].ask(
                        "turn", turn.lead, turn.calls, turn.period_s, limit_s=limit_s
                    )
                except ArmError as error:
                    raise ExecutionError(
                        f"arm {name}: round {done} of {rounds}: {error.reason}. "
                        "Nothing was written; run again, or without this arm."
                    ) from error
                samples[name] += [ns / 1e6 for ns in spent_ns]
                late[name] += missed
            if title is not None:
                self._on_stage(f"{title}round {done} of {rounds}")
        return samples, late

    def _open(self, spec: ArmSpec) -> None:
        process = self._processes[spec.name] = ArmProcess(spec)
        try:
            about: dict[str, Any] = process.ask(
                "open", spec.entry, dict(spec.options), limit_s=self._limits.open_s
            )
        except ArmError as error:
            self._leave_out(spec.name, error)
        else:
            self.entrants[spec.name] = Entrant(spec=spec, **about)

    def _leave_out(self, name: str, error: ArmError) -> None:
        if name in self._required or isinstance(error.error, CheckFailedError):
            raise error.error
        self.left_out[name] = error.reason
        self.entrants.pop(name, None)
        self._processes.pop(name).kill()

    def _kill(self) -> None:
        for process in self._processes.values():
            process.kill()
        self._processes.clear()
