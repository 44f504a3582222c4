"""Runs the commands of one stage to their end, whatever that is, and tells what was seen.

========================================  ==============================================================
what happens                              what follows
========================================  ==============================================================
a line                                    raw into the log, to stdout, into events, past the failure table
one node's command fails                  the other nodes' commands are stopped
no line for too long; the loss is NaN     everything is killed; that is the diagnosis
SIGTERM, SIGINT                           the workers get SIGTERM and ``save_grace`` seconds to save
... a second time                         everything is killed
the supervisor itself is killed           the next start of the stage ends what is left, then goes on
========================================  ==============================================================
"""

from __future__ import annotations

import selectors
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from qwen3_ops.command import Command
from qwen3_ops.events import Events
from qwen3_ops.mindspeed.diagnosis.diagnose import Diagnoser, Diagnosis
from qwen3_ops.mindspeed.log_events import Event, Iteration, Saved, Sign, World
from qwen3_ops.mindspeed.log_lines import parse_line
from qwen3_ops.mindspeed.observation import Observation, Teller
from qwen3_ops.mindspeed.process import Child
from qwen3_ops.mindspeed.watchdog import Watchdog, not_a_number, seconds_of

SAVE_GRACE = "QWEN3_OPS_SAVE_SECONDS"
"""Environment variable: seconds that training has to save in after SIGTERM."""

_PERIOD = 0.5  # seconds between two looks at what prints nothing
_BAR = "%|"  # of a progress bar, which is told in events instead
_LEFT = 5.0  # seconds that processes may outlive their parent


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds. ``save_grace`` covers the iteration being done and a checkpoint of 200 GB; the runtime must wait longer."""

    silence: float
    save_grace: float = field(default_factory=lambda: seconds_of(SAVE_GRACE, 1800.0))


@dataclass(kw_only=True)
class Ended:
    """How the commands ended.

    Attributes:
        exit_codes: of the nodes' commands, in their order; negative: killed by that signal.
        stopped_by: the signal that asked for the end; None where none did.
        killed_for: why the supervisor ended the run itself.
        failed: name of the command that ended badly first, while nobody had asked it to.
    """

    seen: Observation
    diagnoser: Diagnoser
    exit_codes: list[int]
    stopped_by: str | None
    killed_for: Diagnosis | None
    failed: str | None

    @property
    def is_clean(self) -> bool:
        return not any(self.exit_codes) and self.killed_for is None


@dataclass(kw_only=True)
class Supervisor:
    """Attributes:
    folder: the stage's, where the raw logs go.
    when_saved: called with the iteration after every complete checkpoint.
    look_around: called every now and then; a diagnosis it returns ends the run (another host's failure).
    heard_elsewhere: called every now and then; whether another host's part of the run has printed something meanwhile.
    contradiction: called where the log may contradict the request; a diagnosis it returns ends the run.
    seen: filled while the commands run.
    """

    events: Events
    folder: Path
    limits: Limits
    when_saved: Callable[[int], None] = lambda iteration: None
    look_around: Callable[[], Diagnosis | None] = lambda: None
    heard_elsewhere: Callable[[], bool] = lambda: False
    contradiction: Callable[[Observation], Diagnosis | None] = lambda seen: None
    seen: Observation = field(default_factory=Observation)
    _diagnoser: Diagnoser = field(default_factory=Diagnoser)
    _stop_signals: list[str] = field(default_factory=list)
    _deadline: float | None = None
    _killed_for: Diagnosis | None = None
    _failed: str | None = None
    _left_since: dict[str, float] = field(default_factory=dict)

    def run(self, commands: Mapping[str, Command], environment: Mapping[str, str]) -> Ended:
        """Start ``commands`` (name of the node -> its command) and return when nothing of them lives any more.

        Raises:
            BadInput: a program or its folder is not there.
        """
        watchdog, teller = Watchdog(silence=self.limits.silence), Teller(self.events)
        with self._listening(), self._started(commands, environment) as running, selectors.DefaultSelector() as selector:
            for child in running:
                selector.register(child.fd, selectors.EVENT_READ, child)
            while selector.get_map():
                for key, _ in selector.select(_PERIOD):
                    child = key.data
                    watchdog.hear()  # also by a bar that is redrawn without a line feed
                    for line in child.read():
                        self._line(line, source=child.name, teller=teller)
                self._consider(running, watchdog)
                for child in running:
                    if not child.open and child.fd in selector.get_map():
                        selector.unregister(child.fd)
            for child in running:
                child.close()
            codes = [-signal.SIGKILL if child.exit_code is None else child.exit_code for child in running]
        return Ended(
            seen=self.seen,
            diagnoser=self._diagnoser,
            exit_codes=codes,
            stopped_by=self._stop_signals[0] if self._stop_signals else None,
            killed_for=self._killed_for,
            failed=self._failed,
        )

    def _line(self, line: str, *, source: str, teller: Teller) -> None:
        found = parse_line(line)
        if found or _BAR not in line:
            print(line)
        for event in found:
            self.seen.add(event)
            teller.tell(event, self.seen)
            self._act(event, line, source=source)
        if not (found and isinstance(found[0], Iteration)):  # no failure is told in such a line but what _act looks for
            self.seen.texts.feed(line)
            self._diagnoser.feed(line, source=source)

    def _act(self, event: Event, line: str, *, source: str) -> None:
        if isinstance(event, Saved):
            self.when_saved(event.iteration)
        elif self._killed_for is None:
            against = self.contradiction(self.seen) if isinstance(event, World | Sign) else None
            self._killed_for = against or not_a_number(event, line)

    def _consider(self, running: Sequence[Child], watchdog: Watchdog) -> None:
        """Decide, at least every half second, whether the run goes on."""
        _flush(running)
        alive = [child for child in running if child.exit_code is None]
        if self.heard_elsewhere():
            watchdog.hear()
        if self._killed_for is None:
            self._killed_for = watchdog.bark() or self.look_around()
        if self._killed_for is not None or len(self._stop_signals) > 1 or (self._deadline and time.monotonic() > self._deadline):
            for child in running:
                child.kill()
        elif self._stop_signals and self._deadline is None:
            self._deadline = time.monotonic() + self.limits.save_grace
            self.events.log(f"{self._stop_signals[0]}: MindSpeed-LLM has up to {self.limits.save_grace:.0f} s to save and to end")
            for child in alive:
                child.ask_to_save()
        elif not self._stop_signals:
            self._share_fate(running, alive)
        for child in running:
            self._end_left_over(child)

    def _share_fate(self, running: Sequence[Child], alive: Sequence[Child]) -> None:
        """One node's failure stops all: the others would wait for it until HCCL's limit."""
        broken = next((child for child in running if child.exit_code not in (None, 0)), None)
        if broken is None or self._failed is not None:
            return
        self._failed = broken.name
        if alive:
            self.events.log(f"{broken.name} ended with exit status {broken.exit_code}: the other nodes are stopped", level="warning")
        for child in alive:
            child.kill()

    def _end_left_over(self, child: Child) -> None:
        """Processes that outlive the command keep its output open; they get a few seconds.

        One that hides, with another environment and a group of its own, can not be ended; its output is no longer waited for.
        """
        if child.exit_code is None or not child.open:
            return
        left = time.monotonic() - self._left_since.setdefault(child.name, time.monotonic())
        if left > 2 * _LEFT:
            child.open = False
            self.events.log(f"{child.name} has ended; a process that it left behind holds its output open", level="warning")
        elif left > _LEFT:
            child.kill()

    @contextmanager
    def _started(self, commands: Mapping[str, Command], environment: Mapping[str, str]) -> Iterator[list[Child]]:
        with ExitStack() as stack:  # every one is closed, also where closing another fails, as on a full disk
            running: list[Child] = []
            for name, command in commands.items():
                child = Child(command, environment=environment, log=self.folder / f"{name}.log", name=name)
                stack.callback(child.close)
                running.append(child)
            yield running

    @contextmanager
    def _listening(self) -> Iterator[None]:
        def stop(number: int, frame: FrameType | None) -> None:
            self._stop_signals.append(signal.Signals(number).name)

        if threading.current_thread() is not threading.main_thread():  # only there handlers can be set
            yield
            return
        previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _flush(running: Sequence[Child]) -> None:
    print(end="", flush=True)
    for child in running:
        if child.open:
            child.flush()
