import copy
import json
import math
from functools import cache

import numpy as np
import pytest
import torch
from diffusers import FluxControlPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from schemas.errors import ConfigError, ModelError, StageError
from schemas.training import ControlTraining, DpoTraining
from udfs.adapters import LINEAGE_KEY, LORA_FILE, Lora, Whole, expand_for_control
from udfs.encoded import Rows, encode
from udfs.flow_matching import Flow
from udfs.nano_model import TINY, build
from udfs.objectives import DpoObjective
from udfs.training import Split, open_accelerator, order, rate, train

SIZE = 32
CAPTIONS = ("a woman in a red shirt", "a man on a beach", "a child at night")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def _base(seed):
    return build(TINY, seed)


def tiny(control=True, seed=0):
    """A flow around a tiny pipeline; without control, its transformer reads the image's latents alone."""
    parts = dict(_base(seed).components)
    pipe = FluxControlPipeline(**parts | {"transformer": copy.deepcopy(parts["transformer"])})
    pipe.set_progress_bar_config(disable=True)
    if not control:
        old = pipe.transformer.x_embedder
        new = torch.nn.Linear(16, old.out_features)
        new.load_state_dict({"weight": old.weight[:, :16].detach(), "bias": old.bias.detach()})
        pipe.transformer.x_embedder = new
        pipe.transformer.register_to_config(in_channels=16, out_channels=16)
    return Flow(pipe, max_sequence_length=TINY.text_length)


def picture(name):
    """Pixels by a name such as "image 3": noise around a brightness."""
    kind, number = name.split()
    rng = np.random.default_rng([len(kind), int(number)])
    return rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def rows_of(n, pairs=False):
    images = [(f"winner {i}", f"loser {i}") if pairs else (f"image {i}",) for i in range(n)]
    prompts = [CAPTIONS[i % 3] for i in range(n)]
    return Rows(images, [f"control {i // 2}" for i in range(n)], prompts, np.arange(n))


def encoded(flow, folder, n=7, pairs=False, read=picture):
    return encode(flow, rows_of(n, pairs), read, folder / "encoded", "key")


def settings_of(kind=ControlTraining, **given):
    facts = {"steps": 6, "batch_size": 2, "learning_rate": 1e-2, "tensorboard": False, "log_every": 1}
    lora = {} if given.get("full") else {"rank": 4}
    return kind(**{**facts, **lora, "checkpoint_every": 2, **given})


def add(flow, name="trained", settings=None):
    s = settings or settings_of()
    return Lora.add(flow, name, rank=s.rank, alpha=s.alpha, targets=s.targets, seed=s.seed)


def trained(folder, settings=None, flow=None, pairs=False, **more):
    """A training in a folder from the start or from its checkpoint; the flow and what it trained."""
    folder.mkdir(exist_ok=True)
    settings, flow = settings or settings_of(), flow or tiny()
    rows = encoded(flow, folder, pairs=pairs)
    part = Whole.of(flow) if getattr(settings, "full", False) else add(flow, settings=settings)
    split = Split(np.arange(5), np.arange(5, 7))
    done = train(
        flow, part, rows, split, settings, folder, open_accelerator(settings, cpu=True),
        data={"rows": "these"}, **more,
    )  # fmt: skip
    return flow, part, done


def weights(part):
    return {name: p.detach().clone() for name, p in part.parameters().items()}


def velocity(flow, seed=0):
    rng = torch.Generator().manual_seed(seed)
    latents, control = torch.randn(2, 2, 16, 16, generator=rng)
    with torch.no_grad():
        prompts = flow.encode_prompts(["a man", "a woman"])
        return flow.velocity(latents, control, prompts, torch.tensor([0.3, 0.8]), (SIZE, SIZE))


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


class Recorded(Flow):
    """A flow that notes what its transformer is asked."""

    def velocity(self, latents, control, prompts, levels, size, transformer=None):
        self.__dict__.setdefault("asked", []).append((latents, control, prompts, levels))
        return super().velocity(latents, control, prompts, levels, size, transformer)


def test_winner_and_loser_meet_the_same_noise_level_control_and_prompt(tmp_path):
    """What differs between the halves besides the pictures would be learnt as if it were preferred."""
    plain = tiny()
    flow = Recorded(plain.pipeline, plain.guidance_scale, plain.max_sequence_length)
    batch = encoded(flow, tmp_path, pairs=True).batch(np.arange(1, 5), "cpu")
    rng = torch.Generator().manual_seed(7)
    noise, levels = torch.randn(4, 16, 16, generator=rng), torch.tensor([0.2, 0.5, 0.7, 0.9])
    objective = DpoObjective(flow, (SIZE, SIZE), add(flow, "dpo"), beta=100.0)
    objective(flow.transformer, batch, noise, levels, rng)
    assert len(flow.asked) == 2, "the reference and the trained model"
    for points, control, prompts, seen in flow.asked:
        for both in (control, prompts.tokens, prompts.pooled, seen):
            winner, loser = both.chunk(2)
            assert torch.equal(winner, loser)
        t = levels.view(-1, 1, 1)
        for half, place in zip(points.chunk(2), (0, 1), strict=True):
            drawn = (half - (1 - t) * batch.latents[:, place]) / t
            torch.testing.assert_close(drawn, noise, rtol=0, atol=1e-4)
        assert torch.equal(seen[:4], levels)
        assert torch.equal(control[:4], batch.control)
        assert torch.equal(prompts.tokens[:4], batch.prompts.tokens)
    # The rows differ from each other, or equal halves would say nothing of their order.
    assert not torch.equal(batch.latents[:, 0], batch.latents[:, 1])
    assert not torch.equal(batch.prompts.tokens[0], batch.prompts.tokens[1])


def test_the_reference_weight_adds_what_the_velocities_moved_all_along_the_sampler(tmp_path):
    """By hand, at the noise and levels that it drew: the mean square of what the LoRA changes."""
    plain = tiny()
    flow = Recorded(plain.pipeline, plain.guidance_scale, plain.max_sequence_length)
    lora = add(flow, "dpo")
    randomize(lora, 3)
    batch = encoded(flow, tmp_path, pairs=True).batch(np.arange(4), "cpu")
    noise, levels = torch.randn(4, 16, 16), torch.full((4,), 0.999)
    size = (SIZE, SIZE)

    def objective(**weight):
        generator = torch.Generator().manual_seed(5)
        return DpoObjective(flow, size, lora, beta=100.0, **weight)(
            flow.transformer, batch, noise, levels, generator
        )

    with torch.no_grad():
        free, found = objective()
        assert "held_drift" not in found
        flow.asked.clear()
        held, found = objective(reference_weight=7.0)
        points, control, prompts, drawn = flow.asked[-1]
        assert torch.equal(points, flow.asked[-2][0]), "model and reference are asked the same"
        assert torch.equal(control, batch.control)
        assert torch.equal(prompts.tokens, batch.prompts.tokens)
        moved = flow.velocity(points, control, prompts, drawn, size, flow.transformer)
        with lora.left_out():
            moved = moved - flow.velocity(points, control, prompts, drawn, size, flow.transformer)
    drift = float(moved.square().mean())
    assert drift > 1e-4
    assert float(found["held_drift"]) == pytest.approx(drift, rel=1e-4)
    assert float(held - free) == pytest.approx(7 * drift, rel=1e-3)
    assert len(set(drawn.tolist())) == 4
    assert float(drawn.min()) < 0.9, "not the levels of the pairs"


def test_the_reference_is_held_at_levels_as_dense_as_the_samplers(tmp_path):
    plain = tiny()
    flow = Recorded(plain.pipeline, plain.guidance_scale, plain.max_sequence_length)
    batch = encoded(flow, tmp_path, pairs=True).batch(np.arange(4), "cpu")
    objective = DpoObjective(flow, (SIZE, SIZE), add(flow, "dpo"), beta=100.0, reference_weight=1.0)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _ in range(100):
            objective.held_drift(flow.transformer, batch, generator)
    drawn = torch.cat([levels for *_, levels in flow.asked[1::2]])
    scheduler = flow.pipeline.scheduler
    mu = None
    if scheduler.config.use_dynamic_shifting:
        mu = math.log(float(flow.shift(torch.tensor(0.5), batch.control.shape[1]) ** -1 - 1) ** -1)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 400, 400), mu=mu)
    sampled = scheduler.sigmas[:-1]
    for share in (0.1, 0.5, 0.9):
        assert float(drawn.quantile(share)) == pytest.approx(float(sampled.quantile(share)), abs=0.05)
    # Winners and losers alike.
    points = torch.stack([points for points, *_ in flow.asked[1::2]])
    t = torch.stack([levels for *_, levels in flow.asked[1::2]])
    near = (t < 0.02).nonzero()
    assert len(near)
    chosen = {
        int((batch.latents[row] - points[step, row]).square().mean((1, 2)).argmin()) for step, row in near
    }
    assert chosen == {0, 1}


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


def randomize(lora, seed, scale=0.3):
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in lora.parameters().values():
            parameter.copy_(torch.randn(parameter.shape, generator=rng) * scale)


def test_the_reference_of_a_preference_training_keeps_the_control_lora(tmp_path):
    flow = tiny(control=False)
    control = add(flow, "control")
    randomize(control, 1)
    flow.transformer.set_adapters(["control"], [0.7])
    with_control = velocity(flow)
    lora = add(flow, "dpo")
    assert lora.others == ("control",)
    assert all(".dpo." in n for n, p in flow.transformer.named_parameters() if p.requires_grad)
    torch.testing.assert_close(velocity(flow), with_control, rtol=0, atol=0)
    randomize(lora, 2)
    with_both = velocity(flow)
    assert float((with_both - with_control).abs().max()) > 1e-3
    with lora.left_out():
        torch.testing.assert_close(velocity(flow), with_control, rtol=0, atol=0)
        assert not any(p.requires_grad for n, p in flow.transformer.named_parameters() if ".control." in n)
    torch.testing.assert_close(velocity(flow), with_both, rtol=0, atol=0)
    # What the reference must not be.
    flow.transformer.disable_adapters()
    assert float((velocity(flow) - with_control).abs().max()) > 1e-3
    flow.transformer.enable_adapters()
    # The objective asks that reference: with the LoRA at zero, loss ln 2 although control is on.
    rows = encoded(flow, tmp_path, pairs=True)
    objective = DpoObjective(flow, (SIZE, SIZE), lora, beta=100.0)
    batch = rows.batch(np.arange(3), "cpu")
    noise, levels = torch.randn(3, 16, 16), torch.tensor([0.2, 0.5, 0.9])
    rng = torch.Generator()
    assert float(objective(flow.transformer, batch, noise, levels, rng)[0].detach()) != pytest.approx(
        math.log(2), abs=1e-4
    )
    with torch.no_grad():
        for name, parameter in lora.parameters().items():
            if "lora_B" in name:
                parameter.zero_()
    loss, found = objective(flow.transformer, batch, noise, levels, rng)
    assert float(loss.detach()) == pytest.approx(math.log(2), abs=1e-6)
    assert float(found["winner_change"]) == float(found["loser_change"]) == 0
    loss.backward()
    assert all(p.grad is None for n, p in flow.transformer.named_parameters() if ".control." in n)


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
