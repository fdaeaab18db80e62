import json
import math

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from schemas.errors import ConfigError, ModelError, StageError
from schemas.training import ControlTraining, DpoTraining
from tests.tiny_training import (
    SIZE,
    add,
    encoded,
    picture,
    rows_of,
    settings_of,
    tiny,
    trained,
    velocity,
    weights,
)
from udfs.adapters import LINEAGE_KEY, LORA_FILE, Whole, expand_for_control
from udfs.encoded import encode
from udfs.flow_matching import Flow
from udfs.nano_model import TINY
from udfs.training import open_accelerator, order, rate


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (ControlTraining, {"schedule": "cosine", "warmup_steps": 2, "gradient_accumulation": 2}),
        (ControlTraining, {"full": True, "weight_decay": 0.1}),
        (ControlTraining, {"mixed_precision": "bf16", "gradient_checkpointing": True}),
        (DpoTraining, {"winner_weight": 0.1, "reference_weight": 0.1}),
    ],
)
def test_a_training_that_was_killed_ends_in_the_same_weights_bit_for_bit(tmp_path, kind, more):
    settings, pairs = settings_of(kind, **more), kind is DpoTraining
    _, whole, _ = trained(tmp_path / "whole", settings, pairs=pairs)

    def killed(progress):
        # Right after the checkpoint of step 2 and one step more, which is lost.
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "parts", settings, pairs=pairs, watch=killed)
    assert [row["step"] for row in log_of(tmp_path / "parts")] == [1, 2, 3]
    _, parts, done = trained(tmp_path / "parts", settings, pairs=pairs)
    assert done.finished
    a, b = weights(whole), weights(parts)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    _, untrained, _ = trained(tmp_path / "other", settings.model_copy(update={"seed": 1}), pairs=pairs)
    assert not all(torch.equal(a[name], p) for name, p in weights(untrained).items())
    # The log of both is the same, the lost step taken back.
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")


def test_a_training_that_is_told_to_stop_goes_on_where_it_was(tmp_path):
    _, whole, _ = trained(tmp_path / "whole", settings_of(steps=4))
    asked = []
    _, _, done = trained(
        tmp_path / "parts", settings_of(steps=4), stop=lambda: bool(asked.append(1)) or len(asked) == 3
    )
    assert (done.step, done.finished) == (3, False)
    seen = []
    _, parts, done = trained(tmp_path / "parts", settings_of(steps=4), watch=lambda p: seen.append(p.step))
    assert seen == [4]
    assert all(
        torch.equal(a, b) for a, b in zip(weights(whole).values(), weights(parts).values(), strict=True)
    )
    # With more steps it goes on too; what it has been told before it does not do again.
    _, _, done = trained(tmp_path / "parts", settings_of(steps=5))
    assert done.step == 5
    last = done.values
    _, _, done = trained(tmp_path / "parts", settings_of(steps=5))
    assert (done.finished, done.ran) == (True, 0)
    assert done.values == pytest.approx(last, rel=1e-5), "what was measured is still known"


def test_a_checkpoint_beyond_the_steps_that_are_asked_for_is_refused(tmp_path):
    """Its weights are those of more steps than the result would say."""
    trained(tmp_path, settings_of(steps=3))
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(ConfigError, match=r"at step 3, beyond the 2 that are asked for; .*--out another"):
        trained(tmp_path, settings_of(steps=2))
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_a_training_from_before_there_was_a_reference_weight_goes_on():
    assert "reference_weight" not in DpoTraining().identity
    assert DpoTraining(reference_weight=1).identity["reference_weight"] == 1


def test_a_training_that_was_held_at_the_levels_of_its_pairs_alone_is_another_one():
    assert DpoTraining(reference_weight=1).identity["reference_levels"] == "sampler"
    assert "reference_levels" not in DpoTraining().identity


def test_a_checkpoint_of_other_settings_or_a_damaged_one_is_refused(tmp_path):
    trained(tmp_path, settings_of(steps=2))
    with pytest.raises(ConfigError, match=r"another training \(settings.learning_rate 0.01 -> 0.02\)"):
        trained(tmp_path, settings_of(steps=4, learning_rate=2e-2))
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="no intact checkpoint"):
        trained(tmp_path, settings_of(steps=4))


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(tmp_path):
    flow = tiny()
    before = {}

    def poison(progress):
        if progress.step == 3:
            before.update(weights_on_disk(tmp_path))
            with torch.no_grad():
                flow.transformer.proj_out.weight.fill_(float("nan"))

    with pytest.raises(StageError, match=r"stopped at step 4: the losses are no .* step 2 is kept"):
        trained(tmp_path, flow=flow, watch=poison)
    assert weights_on_disk(tmp_path).keys() == before.keys()
    assert all(torch.equal(v, before[k]) for k, v in weights_on_disk(tmp_path).items())


@pytest.mark.parametrize("steps", [1, 6])
def test_weights_that_nothing_can_go_on_from_are_never_kept(tmp_path, steps):
    """The loss of a step is that of the weights before it: those after the last step have none."""
    with pytest.raises(
        StageError, match="stopped at step 1: the held-out losses are no finite numbers; no checkpoint"
    ):
        trained(tmp_path, settings_of(steps=steps, learning_rate=1e30, checkpoint_every=1))
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_no_step_meets_the_noise_that_is_measured_with(tmp_path):
    seen = []

    class Spied(Flow):
        def levels(self, *args, **more):
            seen.append(super().levels(*args, **more))
            return seen[-1]

    flow = tiny()
    trained(tmp_path, settings_of(steps=4), Spied(flow.pipeline, max_sequence_length=TINY.text_length))
    drawn = [tuple(levels.tolist()) for levels in seen]
    assert len(drawn) == 6, "four steps, and two looks at the two rows that are held out"
    assert len(set(drawn)) == 5


def test_rows_that_a_training_has_open_stay_its_own(tmp_path):
    flow = tiny()
    first = encoded(flow, tmp_path)
    before = np.array(first.latents)
    encode(flow, rows_of(7, pairs=True), picture, tmp_path / "encoded", "another key")
    assert np.array_equal(first.latents, before)


def weights_on_disk(folder):
    return load_file(folder / "checkpoint.safetensors")


def test_training_lowers_the_loss_of_what_it_learns(tmp_path):
    """Five rows by heart: the held-out loss of others need not fall."""
    settings = settings_of(steps=120, full=True, learning_rate=3e-3, batch_size=5, log_every=20)
    trained(tmp_path, settings)
    losses = [row["loss"] for row in log_of(tmp_path)]
    assert losses[-1] < 0.85 * losses[0]


def test_a_new_lora_changes_nothing_and_trains_itself_alone():
    flow = tiny()
    before = velocity(flow)
    lora = add(flow)
    torch.testing.assert_close(velocity(flow), before, rtol=0, atol=0)
    trainable = [n for n, p in flow.transformer.named_parameters() if p.requires_grad]
    assert trainable == list(lora.parameters())
    assert all(".lora_" in name for name in trainable)
    layers = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in trainable}
    assert layers == {"to_q", "to_k", "to_v", "0"}


def test_a_preference_training_starts_at_ln_2_and_logs_winners_and_losers_apart(tmp_path):
    _, _, done = trained(tmp_path, settings_of(DpoTraining, steps=4, beta=500.0), pairs=True)
    first = log_of(tmp_path)[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert first["accuracy"] == 0.5
    names = {"winner", "loser", "winner_change", "loser_change", "accuracy", "preference", "loss"}
    assert names <= set(first)
    assert {f"held_out_{name}" for name in names} <= set(done.values)


@pytest.mark.parametrize(("control", "alpha"), [(True, 4.0), (True, 16.0), (False, 16.0)])
def test_a_saved_lora_gives_the_trained_model_in_a_fresh_pipeline(tmp_path, control, alpha):
    """With an alpha that is not the rank, and with an input layer that it has to widen."""
    settings = settings_of(alpha=alpha, steps=3)
    flow, lora, _ = trained(tmp_path, settings, flow=tiny(control))
    before = velocity(tiny(control) if control else widened())
    assert float((velocity(flow) - before).abs().max()) > 1e-3
    file = lora.save(tmp_path, {"seed": 3})
    fresh = tiny(control)
    fresh.pipeline.load_lora_weights(tmp_path, weight_name=LORA_FILE, adapter_name="x", use_safetensors=True)
    torch.testing.assert_close(velocity(fresh), velocity(flow), rtol=0, atol=1e-6)
    with safe_open(file, "pt") as opened:
        assert json.loads(opened.metadata()[LINEAGE_KEY]) == {"seed": 3}
        assert all(name.startswith("transformer.") for name in opened.keys())  # noqa: SIM118
    again = lora.save(tmp_path / "again", {"seed": 3})
    assert again.read_bytes() == file.read_bytes()


def widened():
    flow = tiny(control=False)
    expand_for_control(flow)
    return flow


def test_a_base_without_control_gets_input_channels_that_change_nothing_at_first():
    narrow = tiny(control=False)
    assert not narrow.has_control
    latents = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0))
    prompts = narrow.encode_prompts(["a man", "a woman"])
    nothing, some = torch.zeros(2, 16, 0), torch.randn(2, 16, 16)
    levels = torch.tensor([0.3, 0.8])
    with torch.no_grad():
        before = narrow.velocity(latents, nothing, prompts, levels, (SIZE, SIZE))
        add(narrow)
        assert narrow.has_control
        after = narrow.velocity(latents, some, prompts, levels, (SIZE, SIZE))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)


def test_full_training_saves_a_pipeline_with_control(tmp_path):
    import diffusers

    settings = settings_of(full=True, steps=2)
    flow, _, _ = trained(tmp_path / "run", settings, flow=tiny(control=False))
    flow.pipeline.save_pretrained(tmp_path / "pipeline", safe_serialization=True)
    loaded = diffusers.FluxControlPipeline.from_pretrained(tmp_path / "pipeline", use_safetensors=True)
    assert loaded.transformer.config.in_channels == 32
    torch.testing.assert_close(
        velocity(Flow(loaded, max_sequence_length=TINY.text_length)), velocity(flow), rtol=0, atol=0
    )


def test_a_lora_for_layers_that_are_not_there_or_of_a_name_that_is_taken_is_refused():
    flow = tiny()
    for target in ("to_x", "attn", "norm1"):
        with pytest.raises(ConfigError, match=f"no linear layer {target}"):
            add(flow, settings=settings_of(targets=("to_q", target)))
    add(flow)
    with pytest.raises(ConfigError, match="an adapter trained already"):
        add(flow)
    with pytest.raises(ModelError, match="take the LoRAs out"):
        Whole.of(flow)


def test_half_precision_weights_stay_and_the_lora_is_trained_in_float32(tmp_path):
    flow = tiny()
    flow.pipeline.to(torch.bfloat16)
    flow, lora, _ = trained(tmp_path, settings_of(steps=2, mixed_precision="bf16"), flow=flow)
    assert {p.dtype for p in lora.parameters().values()} == {torch.float32}
    assert flow.transformer.proj_out.weight.dtype == torch.bfloat16
    assert all(math.isfinite(row["loss"]) for row in log_of(tmp_path))


def test_fp16_without_a_gpu_is_refused():
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        open_accelerator(settings_of(mixed_precision="fp16"), cpu=True)


def test_every_pass_sees_every_row_once_in_another_order_whatever_the_batches():
    whole = order(5, 3, 0, 20)
    assert all(sorted(whole[i : i + 5]) == [0, 1, 2, 3, 4] for i in range(0, 20, 5))
    assert len({tuple(whole[i : i + 5]) for i in range(0, 20, 5)}) > 1
    assert np.array_equal(np.concatenate([order(5, 3, i, 4) for i in range(0, 20, 4)]), whole)
    assert not np.array_equal(order(5, 4, 0, 20), whole)


def test_the_rate_warms_up_and_falls():
    cosine = settings_of(steps=100, warmup_steps=4, schedule="cosine", learning_rate=1.0)
    rates = [rate(cosine, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2, abs=0.01)
    assert max(rates) == rates[4] == 1.0, "the highest is what was asked for"
    assert rates[-1] < 0.01
    constant = settings_of(steps=100, warmup_steps=4, learning_rate=1.0)
    assert [rate(constant, step) for step in (0, 4, 99)] == [0.2, 1.0, 1.0]


def test_tensorboard_has_what_the_log_has(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained(tmp_path, settings_of(steps=2, tensorboard=True))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    logged = [(e.step, e.value) for e in events.Scalars("loss")]
    assert [step for step, _ in logged] == [1, 2]
    assert logged[1][1] == pytest.approx(log_of(tmp_path)[1]["loss"], rel=1e-4)


def test_tensorboard_that_is_asked_for_and_not_there_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'posedreamer\[train\]'"):
        trained(tmp_path, settings_of(steps=1, tensorboard=True))
    trained(tmp_path, settings_of(steps=1, tensorboard=None))
