"""Llama's prefill and decode are transformers' Llama; FP8 linears stay near what they replace."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from places import ROOT
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from transformers import LlamaForCausalLM

from iree_pilot.models.fp8 import FORMATS, FP8Linear, calibrate, quantize
from iree_pilot.models.spec import resolve
from iree_pilot.models.traceable import Traceable
from iree_pilot.pipeline.processes import process


def build(text: str, **settings: str) -> Traceable:
    return resolve(text, settings).build()


def call(traceable: Traceable, name: str, *args: torch.Tensor) -> tuple[torch.Tensor, ...]:
    entry = traceable.only(name).functions[0]
    with torch.no_grad():
        result: tuple[torch.Tensor, ...] = entry.module(*(args or entry.args))
    return result


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def linears(traceable: Traceable) -> dict[str, FP8Linear]:
    return {n: m for n, m in traceable.root.named_modules() if isinstance(m, FP8Linear)}


class TestFunctions:
    @pytest.mark.parametrize("attention", ["eager", "sdpa"])
    def test_prefill_is_transformers_llama(self, attention: str) -> None:
        traceable = build("llama:small", attention=attention)
        model: Any = traceable.root
        untouched = LlamaForCausalLM(model.config).eval()
        untouched.load_state_dict(model.state_dict())
        (tokens,) = traceable.only("prefill").functions[0].args
        with torch.no_grad():
            expected = untouched(tokens, use_cache=True)
        logits, keys, values = call(traceable, "prefill")
        assert torch.equal(logits, expected.logits)
        for i, layer in enumerate(expected.past_key_values.layers):
            assert torch.equal(keys[i], layer.keys)
            assert torch.equal(values[i], layer.values)

    @pytest.mark.parametrize("text", ["llama:small", "llama-fp8:tiny"])
    def test_decode_continues_prefill(self, text: str) -> None:
        traceable = build(text, batch="2")
        (prompt,) = traceable.only("prefill").functions[0].args
        token, _, _ = traceable.only("decode").functions[0].args
        whole, keys, values = call(traceable, "prefill", torch.cat([prompt, token], 1))
        step = call(traceable, "decode", token, *call(traceable, "prefill")[1:])
        assert_near(step[0], whole[:, -1:])
        assert_near(step[1], keys)
        assert_near(step[2], values)

    def test_a_decode_of_many_steps_needs_nothing_but_its_own_results(self) -> None:
        traceable = build("llama")
        (prompt,) = traceable.only("prefill").functions[0].args
        logits, keys, values = call(traceable, "prefill")
        tokens = prompt
        for _ in range(4):
            token = logits[:, -1:].argmax(-1)
            tokens = torch.cat([tokens, token], 1)
            logits, keys, values = call(traceable, "decode", token, keys, values)
        whole, _, _ = call(traceable, "prefill", tokens)
        assert_near(logits, whole[:, -1:])

    def test_both_functions_hold_the_same_weights_under_checkpoint_names(self) -> None:
        traceable = build("llama-fp8")
        own = {id(t) for t in traceable.root.state_dict(keep_vars=True).values()}
        for function in traceable.functions:
            assert {id(t) for t in function.module.state_dict(keep_vars=True).values()} == own
        names = set(traceable.root.state_dict())
        assert {
            "model.embed_tokens.weight",
            "model.layers.1.self_attn.o_proj.weight",
            "model.layers.1.self_attn.o_proj.weight_scale",
            "model.layers.1.self_attn.o_proj.input_scale",
            "lm_head.weight",
        } <= names

    def test_a_part_is_one_function_of_the_same_model(self) -> None:
        part = build("llama/decode")
        assert [f.name for f in part.functions] == ["decode"]
        assert set(part.root.state_dict()) == set(build("llama").root.state_dict())

    @pytest.mark.parametrize("name", ["prefill", "decode"])
    def test_a_dynamic_length_is_traced_for_lengths_other_than_the_examples(
        self, name: str
    ) -> None:
        traceable = build("llama", dynamic="true")
        entry = traceable.only(name).functions[0]
        exported = torch.export.export(
            entry.module, entry.args, dynamic_shapes=entry.dynamic_shapes, strict=bool(entry.strict)
        )
        other = build("llama", length="21").only(name).functions[0].args
        with torch.no_grad():
            found = exported.module()(*other)
            for got, want in zip(found, entry.module(*other), strict=True):
                assert_near(got, want)

    def test_rotary_frequencies_keep_their_precision_in_a_narrow_model(self) -> None:
        model: Any = resolve("llama", {}, "bf16").build().root
        assert model.model.rotary_emb.inv_freq.dtype == torch.float32


class TestFP8:
    @pytest.mark.parametrize("fp8", FORMATS)
    def test_a_linear_is_near_the_one_it_replaces(self, fp8: str) -> None:
        torch.manual_seed(0)
        linear, x = nn.Linear(256, 64, bias=False), torch.randn(32, 256)
        exact = linear(x).detach()
        for compute in (torch.float32, torch.float16, torch.bfloat16):
            y = FP8Linear.quantized(linear, x.abs().max(), FORMATS[fp8], compute)(x)
            assert 0 < (y - exact).norm() / exact.norm() < 0.05

    @pytest.mark.parametrize("fp8", FORMATS)
    def test_codes_times_scales_are_the_real_numbers(self, fp8: str) -> None:
        torch.manual_seed(0)
        linear, x = nn.Linear(64, 16, bias=False), torch.randn(8, 64)
        layer = FP8Linear.quantized(linear, x.abs().max(), FORMATS[fp8], torch.float32)
        left = quantize(x, layer.input_scale, FORMATS[fp8]).double() * layer.input_scale.double()
        right = layer.weight.double() * layer.weight_scale.double()
        torch.testing.assert_close(layer(x).double(), left @ right.t(), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("fp8", FORMATS)
    def test_values_beyond_the_range_saturate(self, fp8: str) -> None:
        largest = torch.finfo(FORMATS[fp8]).max
        codes = quantize(torch.tensor([1e9, -1e9, 0.0]), torch.tensor(1.0), FORMATS[fp8])
        assert codes.float().tolist() == [largest, -largest, 0.0]

    def test_sums_of_codes_do_not_leave_the_range_of_f16(self) -> None:
        linear = nn.Linear(4096, 4, bias=False)
        nn.init.constant_(linear.weight, 0.02)
        x = torch.ones(1, 4096)
        y = FP8Linear.quantized(linear, torch.tensor(1.0), FORMATS["e4m3fn"], torch.float16)(x)
        torch.testing.assert_close(y, linear(x).detach(), rtol=1e-2, atol=0)

    def test_a_bias_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no bias"):
            FP8Linear.quantized(
                nn.Linear(4, 4), torch.tensor(1.0), FORMATS["e4m3fn"], torch.float32
            )

    def test_calibration_finds_the_largest_input_of_each_linear(self) -> None:
        first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            first.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 5.0]]))
        model = nn.Sequential(first, nn.ReLU(), second)
        inputs = torch.tensor([[1.0, -2.0], [0.5, 1.0]])
        peaks = calibrate(model, lambda: [model(x) for x in inputs])
        assert {name: peak.item() for name, peak in peaks.items()} == {"0": 2.0, "2": 5.0}
        assert not first._forward_pre_hooks

    def test_all_linears_are_fp8_but_the_head(self) -> None:
        projections = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
        found = linears(build("llama-fp8"))
        assert sorted(n.rpartition(".")[2] for n in found) == sorted(2 * projections)
        assert "lm_head" in linears(build("llama-fp8", head="fp8"))

    @pytest.mark.parametrize("fp8", FORMATS)
    def test_scales_make_the_calibrated_peak_the_largest_code(self, fp8: str) -> None:
        dtype = FORMATS[fp8]
        for name, layer in linears(build("llama-fp8", fp8=fp8)).items():
            assert layer.weight.dtype == dtype, name
            assert layer.weight.float().abs().max() == torch.finfo(dtype).max, name
            assert 0 < layer.input_scale < 1, name

    @pytest.mark.parametrize("compute", ["f32", "f16", "bf16"])
    def test_the_model_stays_near_the_plain_one(self, compute: str) -> None:
        exact = call(build("llama:small"), "prefill")[0]
        logits = call(build("llama-fp8:small", compute=compute), "prefill")[0]
        assert 0 < (logits - exact).norm() / exact.norm() < 0.2


class TestFullSize:
    def test_weights_are_names_and_rotary_frequencies_are_numbers(self) -> None:
        traceable = build("llama-fp8:8b")
        model: Any = traceable.root
        assert not traceable.weights
        assert all(isinstance(t, FakeTensor) for t in model.state_dict(keep_vars=True).values())
        assert not isinstance(model.model.rotary_emb.inv_freq, FakeTensor)
        assert len(linears(traceable)) == 32 * 7

    def test_a_layer_of_full_size_is_traced_in_little_memory(self, tmp_path: Path) -> None:
        """Embedding and head alone would take 4.2 GB; Python, torch and transformers take 0.45."""
        script = tmp_path / "trace.py"
        script.write_text(
            "import torch\n"
            "from iree_pilot.models.spec import resolve\n"
            "made = resolve('llama-fp8:8b', {'layers': '1', 'dtype': 'f32'}).build()\n"
            "with made.tracing():\n"
            "    for f in made.functions:\n"
            "        torch.export.export(f.module, f.args, strict=f.strict)\n"
        )
        outcome = process.run(
            [sys.executable, script],
            stdout=tmp_path / "out",
            stderr=tmp_path / "err",
            limits=process.Limits(seconds=120),
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)},
        )
        assert outcome.ok, (tmp_path / "err").read_text()
        assert outcome.peak_bytes < 1.0e9
