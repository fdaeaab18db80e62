import math

import numpy as np
import pytest
import torch

from tests.tiny_training import SIZE, add, encoded, randomize, tiny, velocity
from udfs.flow_matching import Flow
from udfs.objectives import DpoObjective


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
