"""Why this token: the page's sums, computed in Chromium, against the model itself."""

import pytest
import torch
from pages import scripts

from nanogpt.model.build import layers_of_tokens
from nanogpt.model.gpt import GPT, evaluating
from nanogpt.model.trace import record

from conftest import tiny

IDS = torch.tensor([[7, 3, 60, 7, 3, 11, 42, 0, 5]])
POSITION, TOKEN, OTHER = 6, 21, 33


@pytest.fixture(scope="module")
def page():
    """A page that has the script as `attribution`, and tensors made of plain lists."""
    with scripts("views") as page:
        page.evaluate(
            """async () => {
              window.attribution = await import("/attribution.js");
              window.numbers = await import("/numbers.js");
              window.tensors = (all) => Object.fromEntries(Object.entries(all).map(
                ([name, x]) => [name, { shape: x.shape, data: Float32Array.from(x.data) }]));
            }"""
        )
        yield page


def plain(tensors: dict[str, torch.Tensor]) -> dict[str, object]:
    return {
        name: {"shape": [*x.shape], "data": x.flatten().tolist()} for name, x in tensors.items()
    }


def larger(model: GPT) -> GPT:
    """Weights as large as those of a trained model: all parts and all biases count."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def ask(page, model: GPT, unembedding: torch.Tensor, code: str):
    with evaluating(model), record(model) as seen:
        model(IDS)
    asked = {
        "config": {**vars(model.config)},
        "activations": plain({name: x[0] for name, x in seen.items()}),
        "parameters": plain(dict(model.named_parameters())),
        "position": POSITION,
        "unembedding": unembedding.tolist(),
    }
    prepare = (
        "(asked) => { const { attribute, streams, whyNoSum } = attribution;"
        "for (const key of ['activations', 'parameters']) asked[key] = tensors(asked[key]);"
    )
    return seen, page.evaluate(prepare + code + "}", asked)


VARIANTS = [
    {},
    {"norm": "rms", "position": "rope"},
    {"norm": "none", "position": "alibi", "bias": False},
    {"position": "sinusoidal", "n_kv_head": 1, "window": 3, "qk_norm": True, "mlp": "swiglu"},
    {"attention": "short-conv", "window": 4, "head": "untied"},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_parts_add_up_to_the_logit_and_each_is_the_models_own(page, variant):
    torch.manual_seed(0)
    model = larger(GPT(tiny(**variant)).eval())
    rows = layers_of_tokens(model)[-1].weight.detach()
    seen, found = ask(page, model, rows[TOKEN], "return attribute(asked);")
    logits = seen["lm_head"][0, POSITION]
    assert found["sum"] == pytest.approx(logits[TOKEN].item(), abs=1e-4)  # 2e-6 observed
    values = {(p["kind"], p.get("layer"), p.get("head")): p["value"] for p in found["parts"]}
    assert ("edit", 0, None) not in values

    # Each part's value is by how much the logit falls without it, at the same scale of the norm.
    stream = seen["h.1"][0, POSITION].detach()

    def normed(x):  # linear in x: the scale is that of the whole stream
        if model.config.norm == "none":
            return x
        middle = stream.mean() if model.config.norm == "layer" else 0
        scale = ((stream - middle).square().mean() + 1e-5).sqrt()
        x = x - x.mean() if model.config.norm == "layer" else x
        return x / scale * model.ln_f.weight.detach()

    def worth(x):
        return (normed(x.detach()) @ rows[TOKEN]).item()

    for layer, block in enumerate(model.h):
        name = f"h.{layer}"
        mlp = seen[f"{name}.mlp"][0, POSITION]
        assert values["mlp", layer, None] == pytest.approx(worth(mlp), abs=1e-4)
        kernel = seen[f"{name}.attn.kernel"][0]  # (nh, T, hs)
        for head in range(model.config.n_head):
            alone = torch.zeros_like(kernel)
            alone[head] = kernel[head]
            y = alone[:, POSITION].flatten() @ block.attn.c_proj.weight.T
            assert values["head", layer, head] == pytest.approx(worth(y), abs=1e-4)
    assert values["token", None, None] == pytest.approx(worth(seen["wte"][0, POSITION]), abs=1e-4)
    order = seen["drop"][0, POSITION] - seen["wte"][0, POSITION]
    assert values.get(("position", None, None), 0) == pytest.approx(worth(order), abs=1e-4)
    for part in found["parts"]:
        if part["kind"] == "head":
            pieces = [*part["from"].values()] if isinstance(part["from"], dict) else part["from"]
            assert len(pieces) == POSITION + 1
            assert sum(pieces) == pytest.approx(part["value"], abs=1e-4)


def test_a_difference_of_logits_is_the_difference_of_their_sums(page):
    torch.manual_seed(1)
    model = larger(GPT(tiny()).eval())
    rows = layers_of_tokens(model)[-1].weight.detach()
    seen, one = ask(page, model, rows[TOKEN], "return attribute(asked);")
    _, both = ask(page, model, rows[TOKEN] - rows[OTHER], "return attribute(asked);")
    logits = seen["lm_head"][0, POSITION]
    assert both["sum"] == pytest.approx((logits[TOKEN] - logits[OTHER]).item(), abs=1e-4)
    assert both["parts"][0]["value"] != pytest.approx(one["parts"][0]["value"], abs=1e-3)


def test_the_lens_looks_at_the_stream_after_every_sublayer(page):
    torch.manual_seed(2)
    model = larger(GPT(tiny()).eval())
    seen, found = ask(
        page, model, model.wte.weight[0].detach(),
        "return streams(asked.config, asked.activations)"
        ".map((s) => ({ ...s, data: Array.from(s.data) }));",
    )  # fmt: skip
    assert [s["name"] for s in found] == ["drop", "h.0.attn", "h.0", "h.1.attn", "h.1"]
    after_attention = seen["drop"] + seen["h.0.attn"]
    assert found[1]["data"] == pytest.approx(after_attention.flatten().tolist(), abs=1e-5)
    assert found[4]["data"] == pytest.approx(seen["h.1"].flatten().tolist(), abs=1e-6)


@pytest.mark.parametrize("block", ["post-norm", "no-residual"])
def test_blocks_without_such_a_sum_say_why(page, block):
    torch.manual_seed(3)
    model = GPT(tiny(block=block)).eval()
    code = "return [whyNoSum(asked.config), streams(asked.config, asked.activations).length];"
    _, (why, count) = ask(page, model, model.wte.weight[0].detach(), code)
    assert block in why or "no residual" in why
    assert count == 1 + model.config.n_layer


def test_ranks_and_divergence_are_those_of_torch(page):
    torch.manual_seed(4)
    p, q = torch.randn(2, 50) * 3
    expected = torch.nn.functional.kl_div(
        q.log_softmax(-1), p.log_softmax(-1), log_target=True, reduction="sum"
    )
    found = page.evaluate(
        "([p, q]) => [numbers.divergence(p, q), numbers.rankOf(p, 17),"
        "Array.from(numbers.logSoftmax(p))]",
        [p.tolist(), q.tolist()],
    )
    assert found[0] == pytest.approx(expected.item(), rel=1e-4)
    assert found[1] == 1 + int((p > p[17]).sum())
    assert found[2] == pytest.approx(p.log_softmax(-1).tolist(), abs=1e-5)
