"""Signatures of data: paths, tokens, and what the loss says of them."""

from __future__ import annotations

import re

from qwen3_ops.mindspeed.diagnosis.signature import Fault, Signature

SIGNATURES: tuple[Signature, ...] = (
    Signature(
        name="nan-loss",
        needles=("found NaN in local forward loss calculation",),
        cause="the loss is not a number: bad records, a learning rate that is too high, wrong weights, or a faulty device",
        remedy="Look at the records of that iteration and at the loss before it; lower --lr; check the conversion's certificate; try "
        "another "
        "device.",
        fault=Fault.DATA,
        example="[rank7]: ValueError: Rank 7: found NaN in local forward loss calculation. Device: 7, node: host",
    ),
    Signature(
        name="nan-gradient",
        needles=("found NaN in local grad norm",),
        cause="the gradient is not a number: bad records, a learning rate that is too high, wrong weights, or a faulty device",
        remedy="Look at the records of that iteration and at the loss before it; lower --lr; check the conversion's certificate; try "
        "another "
        "device.",
        fault=Fault.DATA,
        example="[rank0]: AssertionError: Rank 0: found NaN in local grad norm in backward pass before data-parallel communication "
        "collective. "
        "Device: 0, node: host",
    ),
    Signature(
        name="nan-iterations",
        needles=("number of nan iterations:",),
        pattern=re.compile(r"number of nan iterations: +[1-9]"),
        cause="the loss of an iteration is not a number, and training goes on with damaged weights",
        remedy="Start again from the checkpoint before it; look at the records; lower --lr.",
        fault=Fault.DATA,
        example=" [2026-11-24 10:00:00] iteration       12/    2000 | consumed samples:          768 | elapsed time per iteration (ms): "
        "9000.0 | "
        "learning rate: 7.500000E-06 | global batch size:    64 | loss scale: 1.0 | grad norm: nan | number of skipped iterations:   0 | "
        "number of nan iterations:   1 |",
    ),
    Signature(
        name="no-data",
        needles=("no data loaded, you might give wrong data path",),
        cause="--data-path names no data",
        remedy="For instruction data give the prefix without suffix, for pre-training the name with _text_document.",
        fault=Fault.BAD_INPUT,
        example="[rank0]: ValueError: no data loaded, you might give wrong data path.",
    ),
    Signature(
        name="data-index-missing",
        needles=("_document",),
        pattern=re.compile(r"(FileNotFoundError|No such file or directory|AssertionError).*_document(\.idx|\.bin)?"),
        cause="--data-path names no data: a file of the data set is missing",
        remedy="For instruction data give the prefix without suffix, for pre-training the name with _text_document.",
        fault=Fault.BAD_INPUT,
        example="[rank0]: FileNotFoundError: [Errno 2] No such file or directory: '/data/alpaca_packed_input_ids_document.idx'",
    ),
    Signature(
        name="data-cache-read-only",
        needles=("Failed to write dataset materials to the data cache directory",),
        cause="the index of the data set can not be written beside it",
        remedy="Make the folder writable, or give --data-cache-path.",
        fault=Fault.BAD_INPUT,
        example="Failed to write dataset materials to the data cache directory. Please supply a directory to which you have write "
        "access via the "
        "path_to_cache attribute in BlendedMegatronDatasetConfig and retry.",
    ),
    Signature(
        name="stale-data-index",
        needles=("_decoder_packed_idx.npy",),
        pattern=re.compile(r"(Error|error|mismatch|cannot|Cannot).*_decoder_packed_idx\.npy"),
        cause="the shuffled index beside the data set is damaged or another data set's, or several nodes wrote it at once",
        remedy="Start again: each start of a stage makes the index anew, in the stage's own folder. Of a command started by hand, delete "
        "*_decoder_packed_idx.npy beside the data set first.",
        fault=Fault.INFRASTRUCTURE,
        example="[rank0]: ValueError: Cannot load file containing pickled data: "
        "/data/alpaca_train_indexmap_64ns_42s_decoder_packed_idx.npy",
    ),
    Signature(
        name="record-index",
        needles=("index",),
        pattern=re.compile(r"IndexError: (index \d+ is out of bounds for axis|.*out of range in self)"),
        cause="a token is outside the vocabulary, or an index outside the data: tokenizer or data set are another model's",
        remedy="Prepare the data with the model's own tokenizer. Of a command started by hand, delete *_decoder_packed_idx.npy beside the "
        "data set; a stage makes it anew in its own folder at each start.",
        fault=Fault.DATA,
        example="[rank0]: IndexError: index 52002 is out of bounds for axis 0 with size 52002",
    ),
    Signature(
        name="chat-without-terminal",
        needles=("EOFError",),
        cause="inference.py asked for a prompt, as it does without --task",
        remedy="Give --task greedy.",
        fault=Fault.BAD_INPUT,
        example="[rank0]: EOFError: EOF when reading a line",
    ),
    Signature(
        name="prompt-too-long",
        needles=("exceed",),
        pattern=re.compile(
            r"(Length of prompt \+ tokens_to_generate longer than allowed|Too many tokens|exceeds? max.{0,20}(length|tokens))"
        ),
        cause="a prompt is longer than the model's context; what came after it was not evaluated",
        remedy="Raise --max-position-embeddings within the model's own, or leave that question out.",
        fault=Fault.DATA,
        example="ValueError: Length of prompt + tokens_to_generate longer than allowed (exceeds 4096)",
    ),
)
