"""What a line of MindSpeed-LLM's log can say (see log_lines.py)."""

from __future__ import annotations

from typing import NamedTuple


class Iteration(NamedTuple):
    """The training line of the last rank.

    Attributes:
        seconds: per iteration, mean since the line before.
        teraflops: per second and device; None where the tool leaves it out.
        learning_rate: of the next iteration.
        losses: name -> value; without ``lm loss`` where that was zero or not a number.
        grad_norm: None where it is not printed.
        nans: iterations with a loss that is not a number, since the line before.
    """

    printed_at: str
    iteration: int
    train_iters: int
    consumed_samples: int
    seconds: float
    teraflops: float | None
    learning_rate: float | None
    batch_size: int
    losses: dict[str, float]
    loss_scale: float | None
    grad_norm: float | None
    skipped: int
    nans: int

    @property
    def lm_loss(self) -> float | None:
        return self.losses.get("lm loss")


class World(NamedTuple):
    """The sizes that Megatron settled on; TP and PP may be less than asked for."""

    world_size: int
    data_parallel: int
    context_parallel: int
    tensor_parallel: int
    pipeline_parallel: int


class Loading(NamedTuple):
    folder: str
    iteration: int


class Loaded(NamedTuple):
    folder: str
    tensor_rank: int
    pipeline_rank: int
    iteration: int


class Saving(NamedTuple):
    iteration: int
    folder: str


class Saved(NamedTuple):
    iteration: int
    folder: str


class Validation(NamedTuple):
    """``part``: named after training only (``validation`` or ``test``)."""

    iteration: int
    part: str | None
    loss: float
    perplexity: float


class Trainable(NamedTuple):
    trainable: int
    total: int
    percent: float


class RankParameters(NamedTuple):
    tensor_rank: int
    pipeline_rank: int
    parameters: int


class Billions(NamedTuple):
    parameters: float


class Memory(NamedTuple):
    """MB of one device."""

    rank: int
    iterations: int
    allocated: float
    max_allocated: float
    reserved: float
    max_reserved: float


class Layer(NamedTuple):
    """A conversion has passed on this layer."""

    number: int


class Documents(NamedTuple):
    """Data preparation: ``skipped`` None for the line about progress."""

    processed: int
    skipped: int | None


class Subject(NamedTuple):
    name: str
    correct: int
    questions: int


class Answer(NamedTuple):
    """To one question; both letters None where the model wrote none, whose line names no rank either."""

    correct: str | None
    predicted: str | None
    rank: int


class Accuracy(NamedTuple):
    correct: int
    questions: int
    accuracy: float


class Sign(NamedTuple):
    """A line whose being there is all it says."""

    name: str


Event = (
    Iteration
    | World
    | Loading
    | Loaded
    | Saving
    | Saved
    | Validation
    | Trainable
    | RankParameters
    | Billions
    | Memory
    | Layer
    | Documents
    | Subject
    | Answer
    | Accuracy
    | Sign
)
