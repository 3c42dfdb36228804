import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 7: from logits to text")


@app.cell(hide_code=True)
def _():
    import math

    import marimo as mo
    import torch
    from matplotlib import pyplot as plt

    from nanogpt.cli.text import visible
    from nanogpt.config import SampleConfig
    from nanogpt.generation.sampling import apply_temperature, keep_top_k
    from nanogpt.generation.stream import generate_text, prompt_ids
    from nanogpt.learn.models import small_model
    from nanogpt.learn.notebook import source
    from nanogpt.model.gpt import GPT
    from nanogpt.model.layers import softmax

    return (
        GPT,
        SampleConfig,
        apply_temperature,
        generate_text,
        keep_top_k,
        math,
        mo,
        plt,
        prompt_ids,
        small_model,
        softmax,
        source,
        torch,
        visible,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 7. The head: from vectors to the next token

    After this lesson you can turn logits into probabilities without overflow, say what
    temperature and top-k do to them, and choose both for a purpose.

    After the last block every token is a vector again, of as many numbers as the model has
    channels. What comes next? The **head** compares that vector with the embedding of every
    token in the vocabulary. The product is large where they point the same way: that is the
    token's **logit**, its score. The comparison uses the very matrix that turned tokens into
    vectors at the start; what a token looks like going in is what it should look like coming
    out.
    """)
    return


@app.cell(hide_code=True)
def _(GPT, mo, source):
    mo.md(source(GPT.head))
    return


@app.cell(hide_code=True)
def _(mo):
    share = mo.ui.number(value=None, step=0.05, label="your prediction:").form()
    mo.md(
        f"""
        ## Softmax: scores become probabilities

        A score can be any number; a probability lies between 0 and 1, and all of them sum to 1.
        exp makes every score positive, and dividing by the sum makes them sum to 1. So what counts
        is the **difference** of two scores: one that is higher by log 2 is twice as likely.

        **Predict.** There are two tokens, with logits 0 and log 3, about 1.1. What is the
        probability of the second?

        {share}
        """
    )
    return (share,)


@app.cell(hide_code=True)
def _(math, mo, share, softmax, torch):
    right = softmax(torch.tensor([0.0, math.log(3)]))[1].item()
    if share.value is None:
        reply = "Write a number first; there is nothing to lose."
    else:
        verdict = "Yes" if abs(share.value - right) < 0.03 else "Not quite"
        reply = f"{verdict}: {right:.2f}. exp(0) = 1 and exp(log 3) = 3, so 3 of 4 parts."
    mo.md(reply)
    return


@app.cell(hide_code=True)
def _(mo, softmax, source, torch):
    naive = torch.exp(torch.tensor([1000.0, 999.0]))
    mo.md(
        source(softmax)
        + f"\n\nWhy the maximum is subtracted: exp(1000) is {naive[0].item()} in a computer, and "
        f"{naive[0].item()} / {naive.sum().item()} is {(naive / naive.sum())[0].item()}. With the "
        f"maximum subtracted the same two scores give {softmax(torch.tensor([1000.0, 999.0]))[0]:.4f}."
    )
    return


@app.cell(hide_code=True)
def _(mo, small_model):
    with mo.status.spinner("training a small model, once"):
        model, tokenizer = small_model()
    prompt = mo.ui.text(value="What is the king", label="text", full_width=True)
    temperature = mo.ui.slider(
        steps=[0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0], value=0.8,
        label="temperature", show_value=True,
    )  # fmt: skip
    top_k = mo.ui.slider(
        steps=[1, 2, 3, 5, 10, 20, 50, 100, 0], value=20, label="top-k (0: all)", show_value=True
    )
    mo.vstack([
        mo.md(
            """
            ## Temperature and top-k, on a trained model

            The bars are what the model thinks comes next. **Temperature** divides all logits: below
            1 their differences grow and the likely becomes likelier; above 1 they shrink, and
            everything becomes possible. Each unlikely token is rare, but there are many of them, so
            together they are drawn often. **Top-k** removes them: it rules out all but the k
            likeliest.
            """
        ),
        prompt,
        mo.hstack([temperature, top_k], justify="start"),
    ])  # fmt: skip
    return model, prompt, temperature, tokenizer, top_k


@app.cell(hide_code=True)
def _(
    apply_temperature,
    keep_top_k,
    mo,
    model,
    plt,
    prompt,
    prompt_ids,
    softmax,
    temperature,
    tokenizer,
    top_k,
    torch,
    visible,
):
    ids = prompt_ids(tokenizer, prompt.value)[-model.config.context_length :]
    with torch.no_grad():
        logits = model(torch.tensor([ids]))[:, -1]
    plain = softmax(logits)[0]
    changed = softmax(keep_top_k(apply_temperature(logits, temperature.value), top_k.value))[0]

    likeliest = plain.topk(20).indices.tolist()
    names = [visible(tokenizer.decode_bytes([i])).replace("$", "\\$") for i in likeliest]
    bars, axes = plt.subplots(figsize=(9, 3.5), layout="constrained")
    axes.bar(range(20), plain[likeliest], width=0.8, color="#c9d9ea", label="temperature 1, all")
    axes.bar(range(20), changed[likeliest], width=0.4, color="#d1602b", label="as chosen")
    axes.set_xticks(range(20), names, rotation=60, fontsize=9)
    axes.set_ylabel("probability")
    axes.legend(frameon=False)
    possible = int((changed > 0).sum())
    unlikely = 1 - plain[likeliest].sum().item()
    mo.vstack([
        bars,
        mo.md(
            f"Of {len(plain):,} tokens {possible:,} can be drawn; the likeliest has "
            f"{changed.max():.0%}. All that are not shown have {unlikely:.0%} together before "
            "anything is changed."
        ),
    ])
    return


@app.cell(hide_code=True)
def _(
    SampleConfig,
    generate_text,
    mo,
    model,
    prompt,
    temperature,
    tokenizer,
    top_k,
):
    ways = {
        "always the likeliest (temperature 0)": SampleConfig(temperature=0.0, top_k=0),
        "as the model says (temperature 1)": SampleConfig(temperature=1.0, top_k=0),
        f"as chosen (temperature {temperature.value}, top-k {top_k.value})": SampleConfig(
            temperature=temperature.value, top_k=top_k.value
        ),
    }
    parts = []
    for title, settings in ways.items():
        written = "".join(
            generate_text(
                model, tokenizer,
                SampleConfig(
                    prompt=prompt.value, temperature=settings.temperature, top_k=settings.top_k,
                    max_new_tokens=60, seed=1,
                ),
            )
        )  # fmt: skip
        parts.append(mo.md(f"**{title}**\n\n```text\n{prompt.value}{written}\n```"))
    mo.vstack([
        *parts,
        mo.md(
            "Always taking the likeliest soon goes in circles: the likeliest continuation of a "
            "phrase is often the phrase itself. Drawing from everything goes astray sooner or "
            "later. Between them lies what people use, a temperature below 1 and some tens of "
            "tokens."
        ),
    ])
    return


@app.cell(hide_code=True)
def _(apply_temperature, keep_top_k, mo, source):
    mo.accordion({
        "The package's own, in the order in which they are applied": mo.md(
            source(apply_temperature, keep_top_k)
        ),
    })
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    ```sh
    nanogpt exercise check softmax
    nanogpt exercise check top-k
    nanogpt exercise check cache       # the KV cache: old tokens are not computed again
    ```

    And see single draws with `nanogpt generate runs/demo --explain`.

    **Papers.** Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
    Fan et al. 2018, "Hierarchical Neural Story Generation", section 5.4, for top-k. Holtzman
    et al. 2020, "The Curious Case of Neural Text Degeneration", on why the likeliest text is
    a bad one. Press & Wolf 2017, "Using the Output Embedding to Improve Language Models".
    """)
    return


if __name__ == "__main__":
    app.run()
