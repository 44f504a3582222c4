"""What the log of one run adds up to, and how a reader of events is told of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from qwen3_ops.events import Events, format_seconds
from qwen3_ops.mindspeed import log_events as lines
from qwen3_ops.mindspeed.texts import TextReader

_TOLD = 5.0  # seconds between two lines of progress


@dataclass(kw_only=True)
class Observation:
    """Everything the lines of all nodes said.

    Attributes:
        start: the iteration that was done before.
        loaded: folder -> iteration, as the tool names it after loading.
        saved: iterations whose checkpoint was reported as complete.
        subject_answers: per subject (correct, predicted) letters in the order of the lines, of one rank only.
    """

    start: int = 0
    world: lines.World | None = None
    loaded: dict[str, int] = field(default_factory=dict)
    saved: list[int] = field(default_factory=list)
    signs: set[str] = field(default_factory=set)
    first: lines.Iteration | None = None
    last: lines.Iteration | None = None
    seconds: float = 0.0
    validation: list[lines.Validation] = field(default_factory=list)
    trainable: lines.Trainable | None = None
    memory: dict[int, lines.Memory] = field(default_factory=dict)
    layers: int = 0
    documents: int = 0
    skipped_documents: int = 0
    subjects: dict[str, lines.Subject] = field(default_factory=dict)
    subject_answers: dict[str, list[lines.Answer]] = field(default_factory=dict)
    accuracy: lines.Accuracy | None = None
    texts: TextReader = field(default_factory=TextReader)
    _open_answers: list[lines.Answer] = field(default_factory=list)

    def add(self, event: lines.Event) -> None:  # noqa: PLR0912 - one arm a kind of line
        match event:
            case lines.Iteration():
                done = event.iteration - (self.start if self.last is None else self.last.iteration)
                self.seconds += event.seconds * max(done, 0)
                self.first = self.first or event
                self.last = event
            case lines.World():
                self.world = event
            case lines.Loaded():
                self.loaded[event.folder] = event.iteration
            case lines.Saved():
                self.saved.append(event.iteration)
            case lines.Validation():
                self.validation.append(event)
            case lines.Trainable():
                self.trainable = event
            case lines.Memory():
                self.memory[event.rank] = event
            case lines.Layer():
                self.layers = max(self.layers, event.number + 1)
            case lines.Documents():
                self.documents = max(self.documents, event.processed)
                self.skipped_documents += event.skipped or 0
            case lines.Answer():
                self._open_answers.append(event)
            case lines.Subject():
                self.subjects[event.name] = event
                self.subject_answers[event.name], self._open_answers = self._open_answers, []
            case lines.Accuracy():
                self.accuracy = event
            case lines.Sign():
                self.signs.add(event.name)


class Teller:
    """Turns lines into events at once: metrics of every iteration, progress with the time left."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def tell(self, event: lines.Event, seen: Observation) -> None:
        match event:
            case lines.Iteration():
                self._iteration(event)
            case lines.Validation():
                self._events.metric(step=event.iteration, **{f"{event.part or 'validation'}_loss": event.loss})
            case lines.Memory():
                self._events.metric(step=event.iterations, **{f"max_allocated_mb_rank{event.rank}": event.max_allocated})
            case lines.Saved():
                self._events.emit("checkpoint", iteration=event.iteration, folder=event.folder)
            case lines.Layer():
                self._events.emit("progress", what="converting", done=seen.layers, total=None, unit="layers")
            case lines.Documents() if event.skipped is None:
                self._events.emit("progress", what="preparing data", done=event.processed, total=None, unit="documents")
            case lines.Subject():
                self._events.emit("metric", step=None, **{f"accuracy_{event.name}": event.correct / max(event.questions, 1)})
                self._events.emit("progress", what="MMLU", done=len(seen.subjects), total=None, unit="subjects")

    def _iteration(self, event: lines.Iteration) -> None:
        values = {
            "lm_loss": event.lm_loss,
            "learning_rate": event.learning_rate,
            "grad_norm": event.grad_norm,
            "seconds": event.seconds,
            "teraflops": event.teraflops,
            "skipped_iterations": float(event.skipped) if event.skipped else None,
        }
        self._events.emit("metric", step=event.iteration, **{name: value for name, value in values.items() if value is not None})
        left = max(event.train_iters - event.iteration, 0) * event.seconds
        self._events.emit(
            "progress",
            what="training",
            done=event.iteration,
            total=event.train_iters,
            unit="iterations",
            per_second=round(1 / event.seconds, 3) if event.seconds else None,
            eta_seconds=round(left, 1),
            eta=format_seconds(left),
        )
