"""What decides a data set's bytes besides its records; kept with every part, so that merging needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from qwen3_ops.native.data.blocks import IDS, LABELS, MASK
from qwen3_ops.native.data.flags import PRETRAIN, HandlerName, PreprocessFlags
from qwen3_ops.native.data.mapping import key_map
from qwen3_ops.native.data.packing import UNPACKED, Packing
from qwen3_ops.native.data.tokenizer import Tokenizer

_EASILY_FORGOTTEN = ("system", "history", "tools")


class Recipe(BaseModel):
    """Flags by their names, and what the tokenizer adds to them."""

    model_config = ConfigDict(frozen=True)

    handler_name: HandlerName
    prompt_type: str | None
    map_keys: str | None
    json_keys: tuple[str, ...] | None
    seq_length: int | None
    append_eod: bool
    pack: bool
    neat_pack: bool
    pad_to_multiple_of: int
    tokenizer_sha256: str
    pad_token_id: int | None
    """Packing's; None where nothing is padded with it."""

    @classmethod
    def of(cls, flags: PreprocessFlags, tokenizer: Tokenizer) -> Recipe:
        """``tokenizer`` has taken over the template."""
        return cls(
            handler_name=flags.handler_name,
            prompt_type=flags.prompt_type,
            map_keys=flags.map_keys,
            json_keys=flags.json_keys if flags.is_pretraining else None,
            seq_length=flags.seq_length,
            append_eod=flags.append_eod,
            pack=flags.pack,
            neat_pack=flags.neat_pack,
            pad_to_multiple_of=flags.pad_to_multiple_of,
            tokenizer_sha256=tokenizer.sha256,
            pad_token_id=tokenizer.pad_token_id if flags.pack else None,
        )

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the .bin/.idx pairs of the data set, between prefix and ``_document``."""
        return self.json_keys or (IDS, MASK, LABELS)

    @property
    def outputs_of_parts(self) -> Sequence[str]:
        """Likewise, before packing."""
        return UNPACKED if self.pack else self.outputs

    @property
    def packing(self) -> Packing | None:
        if not self.pack or self.seq_length is None or self.pad_token_id is None:
            return None
        return Packing(size=self.seq_length, pad_token_id=self.pad_token_id, neat=self.neat_pack)

    @property
    def columns(self) -> Sequence[str]:
        """Read from the data; each must be there."""
        return self.json_keys or key_map(self.handler_name, self.map_keys).used_columns

    @property
    def columns_remedy(self) -> str:
        """What to do when a column is not there."""
        if self.handler_name == PRETRAIN:
            return "Name the right ones with --json-keys."
        return 'Name the right ones with --map-keys; \'{"query": ""}\' there switches a column off.'

    def forgotten(self, columns: Iterable[str]) -> list[str]:
        """Columns of the data that are likely to be meant, but are not read."""
        if self.handler_name == PRETRAIN:
            return []
        return [name for name in _EASILY_FORGOTTEN if name in columns and name not in self.columns]
