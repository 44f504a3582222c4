"""A part of a data set, as ``--shard`` makes it: its sequences, and ``part.json`` that says what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from qwen3_ops.artifacts import write_atomically, writing
from qwen3_ops.errors import BadInput
from qwen3_ops.native.data.ledger import Ledger
from qwen3_ops.native.data.recipe import Recipe
from qwen3_ops.verbs import Outcome

PART = "part.json"


class Part(BaseModel):
    """What one pass over a share of the input made.

    Attributes:
        shard: which part of how many; a whole run is part 0 of 1.
        files: all input files in their order, those of other parts included.
        ledger: of this part alone; rows count from its own first record.
        prefix: the file names' beginning, in the part's folder.
    """

    shard: tuple[int, int]
    files: list[str]
    recipe: Recipe
    ledger: Ledger
    prefix: str = ""

    @property
    def about(self) -> dict[str, Any]:
        """What the data set was made with and from."""
        return {**self.recipe.model_dump(mode="json"), "files": self.files}

    def publish(self, prefix: Path) -> Outcome:
        self.prefix = prefix.name
        with writing(prefix):
            write_atomically(prefix.parent / PART, self.model_dump_json() + "\n")
        facts = {**self.about, "output_prefix": prefix.name, "shard": list(self.shard)}
        return Outcome(kind="dataset_part", facts=facts, metrics=self.ledger.metrics)


def read_part(folder: Path) -> Part:
    """
    Raises:
        BadInput: the folder holds no part, or a damaged one.
    """
    path = folder / PART
    try:
        return Part.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(
            "no part of a data set", value=folder, source="--input", remedy="Make it with preprocess-data --shard I/N."
        ) from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise BadInput("the part's description is damaged", source=path, remedy="Make the part again.") from error
