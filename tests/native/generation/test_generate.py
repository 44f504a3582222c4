"""Generation equals the real tool's token for token, and is refused where it can not be trusted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from qwen3_ops.errors import BadInput, QualityGate
from qwen3_ops.events import Events
from qwen3_ops.native.generation.beam import beam_search, likeliest
from qwen3_ops.native.generation.decode import complete, cut, sampler
from qwen3_ops.native.generation.flags import FLAGS
from qwen3_ops.native.generation.loading import load_model
from qwen3_ops.native.generation.verb import run
from qwen3_ops.verbs import Context, Outcome


def generate(argv: list[str], *, output: Path | None = None) -> Outcome:
    flags, _ = FLAGS.parse(argv)
    return run(flags, Context(events=Events(), output=output))


def written(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "generations.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("case", "extra"), [("gen5_raw", []), ("gen5_qwen", ["--prompt-type", "qwen"])])
def test_greedy_equals_the_real_tool(case: str, extra: list[str], golden: Path, inference_argv: list[str], tmp_path: Path) -> None:
    expected = json.loads((golden / "train" / "infer" / "generate.json").read_text(encoding="utf-8"))[case]["items"]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("\n".join(json.dumps({"prompt": item["prompt"]}) for item in expected), encoding="utf-8")

    outcome = generate([*inference_argv, *extra, "--max-new-tokens", "24", "--prompts", str(prompts)], output=tmp_path)

    assert [item["prompt_tokens"] for item in written(tmp_path)] == [item["prompt_tokens"] for item in expected]
    assert [item["new_tokens"] for item in written(tmp_path)] == [item["new_tokens"] for item in expected]
    assert [item["text"] for item in written(tmp_path)] == [item["text"] for item in expected]
    assert outcome.kind == "generation"
    assert outcome.metrics["prompts"] == 5


def test_the_default_prompt_is_printed_as_the_real_tool_does(
    golden: Path, inference_argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = generate([*inference_argv, "--task", "greedy", "--max-new-tokens", "32"])

    original = (golden / "train" / "infer" / "stderr_of_inference.txt").read_text(encoding="utf-8").replace("INFO:root:", "")
    assert capsys.readouterr().out.split("Elapsed")[0].split() == original.split("Elapsed")[0].split()
    assert outcome.metrics["new_tokens"] == 32


def test_a_batch_of_unequal_prompts_with_a_common_beginning_equals_one_at_a_time(inference_argv: list[str]) -> None:
    model = load_model(FLAGS.parse(inference_argv)[0], events=Events())
    generator = torch.Generator().manual_seed(0)
    common = torch.randint(0, 500, (7,), generator=generator).tolist()
    prompts = [common + torch.randint(0, 500, (length,), generator=generator).tolist() for length in (3, 9, 1, 4)]

    together = complete(model, prompts, max_new_tokens=6, eos=509)

    assert [item.tokens for item in together] == [complete(model, [prompt], max_new_tokens=6, eos=509)[0].tokens for prompt in prompts]


def test_the_cache_changes_nothing(inference_argv: list[str]) -> None:
    model = load_model(FLAGS.parse(inference_argv)[0], events=Events())
    tokens = [54, 71, 263, 318]
    (done,) = complete(model, [tokens], max_new_tokens=8, eos=509)
    for expected in done.tokens:
        with torch.inference_mode():
            assert int(model(torch.tensor([tokens]))[0, -1].argmax()) == expected
        tokens = [*tokens, expected]


def test_sampling_is_seeded_and_cut() -> None:
    logits = torch.tensor([[0.0, 3.0, 2.0, 1.0]]).expand(200, 4)
    draw = sampler(temperature=1.0, top_k=2, top_p=1.0, seed=1)(logits)
    assert set(draw.tolist()) == {1, 2}
    assert draw.tolist() == sampler(temperature=1.0, top_k=2, top_p=1.0, seed=1)(logits).tolist()
    assert set(sampler(temperature=1.0, top_k=0, top_p=0.5, seed=1)(logits).tolist()) == {1}


def test_eos_ends_a_row_only(inference_argv: list[str]) -> None:
    model = load_model(FLAGS.parse(inference_argv)[0], events=Events())
    prompts = [[54, 71, 263, 318], [33, 32]]
    free = complete(model, prompts, max_new_tokens=6, eos=511)
    eos = free[0].tokens[2]
    first, second = complete(model, prompts, max_new_tokens=6, eos=eos)
    assert first.ended
    assert first.tokens == free[0].tokens[: free[0].tokens.index(eos)]
    assert second.tokens == (free[1].tokens[: free[1].tokens.index(eos)] if eos in free[1].tokens else free[1].tokens)


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    [
        (0, 0, [0, 1, 2, 3, 4]),
        (0, 1, [0, 1, 2, 3, 4]),
        (1, 0, [1]),
        (2, 0, [1, 2, 3]),  # 2 and 3 are as likely
        (9, 0, [0, 1, 2, 3, 4]),
        (0, 0.5, [1]),
        (2, 0.8, [1, 2, 3]),
        (0, 0.01, [1]),
    ],
)
def test_cut_keeps_what_the_real_tool_keeps(top_k: int, top_p: float, kept: list[int]) -> None:
    logits = torch.tensor([[0.0, 3.0, 2.0, 2.0, -30.0]])
    probabilities = cut(logits, temperature=1.0, top_k=top_k, top_p=top_p)
    assert probabilities.sum() == pytest.approx(1.0)
    assert probabilities[0].nonzero().flatten().tolist() == kept


def test_sampling_equals_the_real_tool(inference_argv: list[str]) -> None:
    """Token for token, where both draw from the same seed; the real tool's tokens are stored in ``sampled.json``."""
    stored = json.loads((Path(__file__).parent / "data" / "sampled.json").read_text(encoding="utf-8"))
    model = load_model(FLAGS.parse(inference_argv)[0], events=Events())
    for case in stored["cases"]:
        choose = sampler(**case["settings"])
        (done,) = complete(model, [case["prompt_tokens"]], max_new_tokens=case["max_new_tokens"], eos=509, choose=choose)
        assert done.tokens == case["new_tokens"], case["settings"]


def test_beam_search_equals_the_real_tools_search(inference_argv: list[str]) -> None:
    """Its result, which the real tool computes and does not print when an eos ended it."""
    stored = json.loads((Path(__file__).parent / "data" / "beams.json").read_text(encoding="utf-8"))
    model = load_model(FLAGS.parse(inference_argv)[0], events=Events())
    for case in stored["cases"]:
        done = beam_search(model, case["prompt_tokens"], **case["settings"], strategy=likeliest())
        assert (done.tokens, done.ended) == (case["new_tokens"], case["ended"]), case["settings"]


def test_defaults_are_those_of_inference_py(inference_argv: list[str]) -> None:
    flags, _ = FLAGS.parse(inference_argv)
    assert (flags.temperature, flags.top_k, flags.top_p, flags.max_new_tokens, flags.history_turns) == (0.7, 50, 0.95, 128, 3)


def test_flags_of_the_originals_dense_scripts_have_no_effect(inference_argv: list[str]) -> None:
    extra = ["--norm-topk-prob", "--expert-model-parallel-size", "1", "--max-length", "256", "--max-tokens-to-oom", "16384"]
    _, inert = FLAGS.parse([*inference_argv, *extra])
    assert {flag for flag in extra if flag.startswith("--")} <= set(inert)


@pytest.mark.parametrize("name", ["08_generate_full", "14_generate_lora"])
def test_the_runbooks_flags_are_understood(name: str, golden: Path) -> None:
    command = json.loads((golden / "commands" / f"{name}.json").read_text(encoding="utf-8"))
    argv = command["argv"][command["argv"].index("inference.py") + 1 :]
    flags, _ = FLAGS.parse([*argv, "--task", "greedy"])
    assert (flags.num_layers, flags.max_new_tokens, flags.params_dtype_name) == (40, 256, "bf16")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--task", "beam_search", "--num-beams", "1"], "num-beams"),
        (["--task", "chat"], "standard input is not a terminal"),
        (["--task", "talk"], "unknown; choose among"),
        (["--hf-chat-template", "--prompt-type", "qwen"], "exclude each other"),
        (["--enable-thinking", "true"], "needs --hf-chat-template or --prompt-type qwen3"),
        (["--enable-thinking", "maybe", "--hf-chat-template"], "enable-thinking"),
        (["--temperature", "0"], "temperature"),
        (["--top-p", "1.5"], "top-p"),
        (["--top-k", "-1"], "top-k"),
        (["--prompt-type", "qwen9"], "no template of that name"),
        (["--max-new-tokens", "5000"], "exceed --max-position-embeddings"),
        (["--prompts", "missing.txt"], "can not be read"),
    ],
)
def test_what_can_not_work_is_refused(extra: list[str], message: str, inference_argv: list[str]) -> None:
    with pytest.raises(BadInput, match=message):
        generate([*inference_argv, *extra])


def test_another_layout_is_refused(inference_argv: list[str]) -> None:
    argv = list(inference_argv)
    argv[argv.index("--tensor-model-parallel-size") + 1] = "1"
    with pytest.raises(BadInput, match="TP2 PP2, flags: TP1 PP2"):
        generate(argv)


@pytest.mark.parametrize("temperature", [1e-40, 1e-3])
def test_the_coldest_sampling_is_greedy(temperature: float) -> None:
    logits = torch.randn(5, 30, generator=torch.Generator().manual_seed(1)) * 20
    assert sampler(temperature=temperature, top_k=0, top_p=1.0, seed=1)(logits).tolist() == logits.argmax(-1).tolist()


@pytest.mark.parametrize("task", ["greedy", "do_sample", "beam_search", "beam_search_with_sampling"])
def test_logits_that_are_not_numbers_fail_the_gate(task: str, inference_argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(flags: FLAGS, *, events: Events) -> torch.nn.Module:
        model = load_model(flags, events=events)
        with torch.no_grad():
            model.decoder.final_layernorm.weight[0] = float("nan")
        return model

    monkeypatch.setattr("qwen3_ops.native.generation.verb.load_model", broken)
    with pytest.raises(QualityGate, match="not numbers"):
        generate([*inference_argv, "--max-new-tokens", "2", "--task", task])


def test_one_token_for_ever_fails_the_gate(inference_argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen3_ops.native.generation.verb.greedy", lambda logits: torch.full(logits.shape[:1], 33))
    with pytest.raises(QualityGate, match="one token for ever"):
        generate([*inference_argv, "--max-new-tokens", "20"])
