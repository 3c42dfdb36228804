import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Lesson 19: from base model to assistant")


@app.cell(hide_code=True)
def _():
    import copy
    import html
    import math
    import random
    import string

    import marimo as mo
    import numpy as np
    import torch
    from matplotlib import pyplot as plt
    from matplotlib.patches import Rectangle

    from nanogpt.config import IGNORED, ModelConfig, PolicyConfig, TrainConfig
    from nanogpt.evaluation.rewards import contains
    from nanogpt.generation.rollouts import roll_out
    from nanogpt.learn.notebook import judged, package_code, predict, reply, self_test
    from nanogpt.model.gpt import GPT
    from nanogpt.model.lora import LoRALinear, add_lora, lora, plain_tensors
    from nanogpt.text.batches import padded_batch
    from nanogpt.text.conversations import (
        SPECIAL_TOKENS,
        Message,
        answers_only,
        encode_conversation,
    )
    from nanogpt.text.tokenizer import CharTokenizer
    from nanogpt.training.objective.policy import Policy, advantages, distance, log_probabilities
    from nanogpt.training.objective.preference import preference_loss
    from nanogpt.training.optim import build_optimizer

    torch.set_num_threads(1)  # for models so small, two threads wait for each other
    BLUE, ORANGE, OLIVE, GREY, LIGHT = "#1f5a99", "#d1602b", "#7a9a3a", "#888888", "#c9d9ea"
    plt.rcParams.update({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False})
    return (
        BLUE,
        CharTokenizer,
        GPT,
        GREY,
        IGNORED,
        LIGHT,
        LoRALinear,
        Message,
        ModelConfig,
        OLIVE,
        ORANGE,
        Policy,
        PolicyConfig,
        Rectangle,
        SPECIAL_TOKENS,
        TrainConfig,
        add_lora,
        advantages,
        answers_only,
        build_optimizer,
        contains,
        copy,
        distance,
        encode_conversation,
        html,
        judged,
        log_probabilities,
        lora,
        math,
        mo,
        np,
        package_code,
        padded_batch,
        plain_tensors,
        plt,
        predict,
        preference_loss,
        random,
        reply,
        roll_out,
        self_test,
        string,
        torch,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # 19. From base model to assistant

    After this lesson you can

    - say why a trained model does not answer, and what makes it answer,
    - say which tokens of a conversation count in training, and why,
    - derive from one line how a model learns from a reward,
    - recognise a reward with a hole, and say what helps against it and what does not,
    - say what fine-tuning with few numbers changes, and what it saves.

    You need lessons 2, 3, 5, 8, 9 and 12. Everything here is trained while you read, in about a minute.

    All models of this course go on with a text. Such a model is called a **base model**. A chat
    program answers. It begins as a base model, too. Then it imitates demonstrations, and it learns from rewards.
    We do both with one small model and one small task.

    ## A small world

    A question is four digits and a question mark. The answer is the largest digit: `3815?` has the
    answer `8`. There are 10,000 questions, and a program can check every answer. We set 200 questions
    aside. The function `questions` leaves them out, and all training here draws from it. So none of them is ever
    seen, neither with `?` nor with `=`, and they measure more than memory. (The same digits in another order may be seen:
    `8315` where `3815` is held out. The large world at the end excludes that, too.)
    """)
    return


@app.cell
def _(CharTokenizer, SPECIAL_TOKENS, random):
    tokenizer = CharTokenizer("0123456789=? ", SPECIAL_TOKENS)  # and special tokens: see below
    END = tokenizer.special_tokens["<|end|>"]
    held_out = ["".join(random.Random(n).choices("0123456789", k=4)) for n in range(200)]

    def questions(seed):
        """Four digits, again and again, and never those of a held-out question."""
        draw = random.Random(f"questions {seed}")
        while True:
            digits = "".join(draw.choices("0123456789", k=4))
            if digits not in held_out:
                yield digits

    largest = max  # the largest character of a text

    def equal(answer, expected):
        """1 for the right answer, and for nothing else."""
        return float(answer == expected)

    return END, equal, held_out, largest, questions, tokenizer


@app.cell(hide_code=True)
def _(mo, predict):
    base_guess = predict(
        "A model has read such sheets and nothing else. Then it reads `3815?` at the beginning of a text. "
        "What does it write next?",
        ["more questions", "8", "the same digits again", "nothing: it does not know what to do"],
    )
    mo.vstack([
        mo.md(
            """
            ## First the base model

            Its texts are sheets from an imaginary schoolbook. Half of them are
            exercises, and half are solutions:

                3815? 2207? 9134? 7520? 0064? ...
                3815=8 2207=7 9134=9 7520=7 ...
            """
        ),
        base_guess,
    ])  # fmt: skip
    return (base_guess,)


@app.cell
def _(GPT, ModelConfig, TrainConfig, build_optimizer, questions, random, tokenizer, torch):
    def sheets(seed):
        """Batches of 32 sheets, as ids and targets (32, 24)."""
        draw, asked = random.Random(seed), questions(seed)
        while True:
            texts = []
            for _ in range(32):
                five = [next(asked) for _ in range(5)]
                solved = draw.random() < 0.5
                texts.append(" ".join(f"{q}={max(q)}" if solved else f"{q}?" for q in five))
            rows = torch.tensor([tokenizer.encode(text)[:25] for text in texts])
            yield rows[:, :-1], rows[:, 1:]

    def optimizer_of(model, lr, matrices=0.02):
        """Muon (lesson 9), with one learning rate for embeddings and another one for matrices."""
        rates = {"lr": lr, "muon_lr": matrices}
        return build_optimizer(model, TrainConfig(optimizer="muon", weight_decay=0.0, **rates))

    def update(optimizer, loss, lr):
        """One step of the optimizer."""
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_factor", 1.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def practise(model, batches, steps, lr):
        """Train on batches of ids and targets. The learning rate rises, then falls."""
        optimizer = optimizer_of(model, lr)
        for step in range(steps):
            ids, targets = next(batches)
            share = min(1, (step + 1) / 10) * (1 - 0.9 * step / steps)
            update(optimizer, model.loss(model(ids), targets), lr * share)
        return model

    torch.manual_seed(0)
    base = GPT(ModelConfig(vocab_size=tokenizer.vocab_size, context_length=32, n_layer=2, n_head=4, n_embd=64))
    base = practise(base, sheets(0), steps=150, lr=0.02)
    f"{base.num_parameters():,} weights"
    return base, optimizer_of, practise, sheets, update


@app.cell(hide_code=True)
def _(END, base, base_guess, held_out, largest, mo, reply, roll_out, tokenizer):
    def said(ids):
        """What a model said, as text, without the token that ends it."""
        return tokenizer.decode([i for i in ids if i != END])

    def base_writes(prompts, tokens, temperature=0.0):
        """How the base model goes on with some texts."""
        ids = [tokenizer.encode(text) for text in prompts]
        found = roll_out(base, ids, {END}, tokens, seed=1, temperature=temperature)
        return [said(answer.ids) for answer in found]

    _lines = base_writes([f"{_q}?" for _q in held_out[:4]], 18, temperature=1.0)
    _table = "\n".join(f"| `{_q}?` | `{_text}` |" for _q, _text in zip(held_out, _lines, strict=False))
    _right = sum(
        _text == largest(_q)
        for _q, _text in zip(held_out, base_writes([f"{_q}=" for _q in held_out], 1), strict=True)
    ) / len(held_out)
    mo.vstack([
        reply(
            base_guess,
            "more questions",
            "It computes what comes next in texts like those that it has read. There, the next "
            "question follows a question.",
            wrong={
                "8": "On no sheet does an answer follow a question mark. Whether the model knows the answer "
                "makes no difference: it is not asked for it.",
                "the same digits again": "Digits follow, but new ones: on a sheet each question is another one.",
                "nothing: it does not know what to do": "A model always gives a probability to each token, and "
                "one of them is drawn.",
            },
        ),
        mo.md("| it reads | it goes on |\n|:---|:---|\n" + _table),
        mo.md(
            f"""
            Does it know nothing of largest digits? Ask as the sheets of solutions do, with `3815=`. Then its
            likeliest next digit is right for **{_right:.0%}** of the held-out questions. So a base model can know
            an answer and not give it. It goes on with the text, and an answer is only one way to go on.
            """
        ),
    ])  # fmt: skip
    return (said,)


@app.cell(hide_code=True)
def _(mo):
    user_text = mo.ui.text(value="3815?<|end|><|assistant|>9", label="the user writes", full_width=True)
    mo.vstack([
        mo.md(
            """
            ## Who speaks: tokens for roles

            A conversation is a list of messages. Each has a **role**: who speaks. There are three. The
            *system* message holds the rules of those who run the program, the *user* asks, and the *assistant*
            answers. A model reads one row of tokens, so the roles have to be tokens, too. The **chat template**
            says how messages become tokens. The package's template is as simple as it can be: the token of
            the role, the text, the token `<|end|>`. To ask for an answer, you append `<|assistant|>` and let
            the model go on. (The package puts `<|endoftext|>` before it all. The lesson leaves it out, in training
            and when asking.)

            These are *special tokens* (lesson 3): no text contains them. Try to break this. The user below
            writes the names of the tokens into the question, to make the program believe that the assistant
            has said 9 already. Dark boxes are special tokens.
            """
        ),
        user_text,
    ])  # fmt: skip
    return (user_text,)


@app.cell(hide_code=True)
def _(
    BLUE,
    CharTokenizer,
    LIGHT,
    Message,
    SPECIAL_TOKENS,
    encode_conversation,
    html,
    mo,
    package_code,
    string,
    user_text,
):
    def boxes(pieces, inks, notes=None):
        """Tokens as boxes: a text, a colour, and perhaps a line below."""
        notes = notes or [""] * len(pieces)
        return "".join(
            f'<span style="display:inline-block;margin:1px;padding:2px 5px;background:{ink};text-align:center;'
            f'color:{"#fff" if ink == BLUE or ink == "#444444" else "#000"};font-family:monospace">'
            f"{html.escape(piece)}{f'<br><small>{html.escape(note)}</small>' if note else ''}</span>"
            for piece, ink, note in zip(pieces, inks, notes, strict=True)
        )

    letters = CharTokenizer(string.ascii_letters + string.digits + string.punctuation + " ", SPECIAL_TOKENS)
    _known = "".join(c for c in user_text.value if c in letters.characters)
    _ids = encode_conversation(letters, [Message("user", _known)], reply=True)
    _names = {number: name for name, number in letters.special_tokens.items()}
    _pieces = [_names.get(i) or letters.decode([i]) for i in _ids]
    mo.vstack([
        mo.Html(f"<div>{boxes(_pieces, ['#444444' if i in _names else LIGHT for i in _ids])}</div>"),
        mo.md(
            f"""
            The text of a message is encoded as plain text, whatever it contains. Somebody who writes
            `<|assistant|>` has written thirteen characters, and they become thirteen tokens. The token
            `<|assistant|>` has the number {letters.special_tokens["<|assistant|>"]}, and no text becomes this number. So the ids alone
            say for certain who speaks. (Not every program is so careful. Some first put the whole
            conversation together as one text, with the names of the tokens, and then look for these names. There
            a user can forge a role.)
            """
        ),
        package_code(encode_conversation),
    ])  # fmt: skip
    return (boxes,)


@app.cell(hide_code=True)
def _(mo, predict):
    count_guess = predict(
        "A demonstration is `<|user|>` `3` `8` `1` `5` `?` `<|end|>` `<|assistant|>` `8` `<|end|>`. These are 10 "
        "tokens, so there are 9 targets: each token but the first. How many of them should count in the loss?",
        step=1,
    )
    mo.vstack([
        mo.md(
            """
            ## Fine-tuning

            **Fine-tuning** (with demonstrations: *supervised fine-tuning*, SFT) means: training goes on from a trained model, with other data. Our data are
            *demonstrations*: conversations in which somebody has written the right answer. They are scarce,
            since a person has to write each of them. We have twelve.

            The loss is the one you know, cross-entropy. One thing is new.
            """
        ),
        count_guess,
    ])  # fmt: skip
    return (count_guess,)


@app.cell
def _(Message, answers_only, encode_conversation, mo, padded_batch, tokenizer, torch):
    def dialogue_ids(question, answer=None):
        """The ids of a question, and of its answer if there is one."""
        messages = [Message("user", question + "?")]
        if answer is not None:
            messages.append(Message("assistant", answer))
        return encode_conversation(tokenizer, messages, reply=answer is None)

    def answer_batch(rows):
        """Conversations as ids and targets (B, T). Only what the assistant says is a target."""
        ids, targets, _ = padded_batch(rows)
        special = tokenizer.special_tokens
        targets = answers_only(ids, targets, special["<|assistant|>"], special["<|end|>"])
        return torch.from_numpy(ids), torch.from_numpy(targets)

    shown_ids, shown_targets = answer_batch([dialogue_ids("3815", "8")])
    mo.md(f"`{shown_targets[0].tolist()}`")
    return answer_batch, dialogue_ids, shown_ids, shown_targets


@app.cell(hide_code=True)
def _(
    BLUE,
    IGNORED,
    LIGHT,
    answers_only,
    boxes,
    count_guess,
    mo,
    package_code,
    reply,
    shown_ids,
    shown_targets,
    tokenizer,
):
    _names = {number: name for name, number in tokenizer.special_tokens.items()}
    _name = lambda i: _names.get(i) or tokenizer.decode([i])  # noqa: E731
    _ids, _targets = shown_ids[0].tolist(), shown_targets[0].tolist()
    _counts = [t != IGNORED for t in _targets]
    _pieces = [_name(i) for i in _ids]
    mo.vstack([
        reply(
            count_guess,
            sum(_counts),
            "The 8, and the <|end|> after it: these are the tokens that the assistant has to write.",
            wrong={
                1: "The <|end|> counts, too. Without it the model would never learn to stop.",
                9: "Then the model would also learn to ask. Most of the loss would be spent on guessing which "
                "digits the user will choose.",
                3: "The program writes <|assistant|>, in order to ask for an answer. The model need not predict it.",
            },
        ),
        mo.Html(f"<div>{boxes(_pieces, [LIGHT, *(BLUE if c else LIGHT for c in _counts[:-1])])}</div>"),
        mo.md(
            """
            Blue tokens are targets that count. All others are ignored: their target is -100, as for padding
            in lesson 8. The model still *reads* the question, but need not predict it. The last
            entry belongs to the last token, after which nothing comes: it is ignored, too. `<|assistant|>` does not count,
            because the program writes it. `<|end|>` counts: without it the model would never learn to stop. Each target stands one place before its token, as always.

            `answers_only` finds the targets that count. It gets nothing but ids, and that is enough, since
            nobody can forge a role. A window may begin in the middle of a conversation; then nothing counts
            until the assistant begins to speak. The function is the first exercise of this lesson.
            """
        ),
        package_code(answers_only),
    ])  # fmt: skip
    return


@app.cell
def _(answer_batch, base, dialogue_ids, copy, practise, questions, random):
    twelve = [q for q, _ in zip(questions("demonstrations"), range(12), strict=False)]

    def demonstration_batches(from_these, seed=0):
        """Batches of 32 demonstrations."""
        draw = random.Random(seed)
        while True:
            yield answer_batch([dialogue_ids(q, max(q)) for q in draw.choices(from_these, k=32)])

    tuned = practise(copy.deepcopy(base), demonstration_batches(twelve), steps=25, lr=0.005)
    more_of_it = practise(copy.deepcopy(tuned), demonstration_batches(twelve, 1), steps=150, lr=0.005)
    return demonstration_batches, more_of_it, tuned


@app.cell(hide_code=True)
def _(END, base, dialogue_ids, equal, held_out, largest, mo, more_of_it, roll_out, said, tuned):
    def likeliest_answers(model, asked):
        """The likeliest answers to some questions."""
        prompts = [dialogue_ids(q) for q in asked]
        return [said(a.ids) for a in roll_out(model, prompts, {END}, 8, seed=0, temperature=0)]

    def share_right(model, reward=equal):
        """The share of the held-out questions that a model answers right."""
        found = likeliest_answers(model, held_out)
        return sum(reward(a, largest(q)) for a, q in zip(found, held_out, strict=True)) / len(held_out)

    _three = held_out[:3]
    _rows = [
        f"| {name} | {' '.join(f'`{a}`' for a in likeliest_answers(m, _three))} | **{share_right(m):.0%}** |"
        for name, m in (("base model", base), ("after 25 steps", tuned), ("150 steps more", more_of_it))
    ]
    _told = f"After 150 further steps it is {share_right(more_of_it):.0%}."
    mo.md(
        f"| | answers to {', '.join(f'`{q}?`' for q in _three)} | held-out questions answered right |\n|:---|:---|---:|\n"
        + "\n".join(_rows)
        + f"\n\nTwelve demonstrations and less than a second made an assistant. It answers, in the right form, and it is "
        f"right in {share_right(tuned):.0%} of the cases. {_told} Twelve demonstrations are soon learned by heart, and "
        "there is nothing else to learn from them (overfitting, lesson 9). For more, somebody would have to "
        "write more demonstrations. Or there has to be another way to learn."
    )
    return likeliest_answers, share_right


@app.cell(hide_code=True)
def _(mo, predict):
    better_guess = predict(
        "The model gives answer A the probability 0.5, B 0.3 and C 0.2. Only B is right: it gets 1, the others 0. "
        "If the model draws many answers, what is the mean reward? By how much is the reward of B above it? Give the second number.",
        step=0.1,
    )
    mo.vstack([
        mo.md(
            """
            ## Raise what turned out better than its group

            There is another way, **reinforcement learning** (RL), because checking an answer is easier than writing it. Here a program can do
            it. Let the model answer, and let the program give a number for the answer: the **reward**. Say 1
            for right and 0 for wrong. The rule fits into one line:

            > *Try several answers to a question. Raise the probability of those that turned out better than the
            > mean of their group, and lower the others.*

            We begin with the smallest model there is. It knows one question and three answers. Its weights
            are three logits, and softmax makes them probabilities.
            """
        ),
        better_guess,
    ])  # fmt: skip
    return (better_guess,)


@app.cell(hide_code=True)
def _(better_guess, mo, reply):
    mo.vstack([
        reply(
            better_guess,
            0.7,
            "The mean is 0.5 · 0 + 0.3 · 1 + 0.2 · 0 = 0.3. B gets 1, which is 0.7 more. A and C get 0.3 less "
            "than the mean.",
            wrong={
                1: "That is its reward. The model gets 0.3 on average already.",
                0.3: "That is the mean.",
                0.67: "That would be so if the three answers were equally likely. The mean is that of what the model draws.",
            },
            tolerance=0.001,
        ),
        mo.md(
            r"""
            This difference, reward minus mean, is called the **advantage**. Now the same as mathematics. What
            should rise is the mean reward $J$, over all answers $a$ that the model can give:

            $$J = \sum_a p(a)\,R(a)$$
            
            All that follows comes from this line. $\nabla$ means the gradient: the slopes for all weights.

            Only $p$ depends on the weights. The rewards $R$ come from outside. This gives
            $\nabla J = \sum_a \nabla p(a)\,R(a)$. To *try* answers means to draw them with $p$, so we want a mean over
            drawn answers: each term needs a factor $p(a)$. The slope of log p is 1/p (lesson 5), so by the chain rule $\nabla \log p = \nabla p \,/\, p$, and we can write
            $\nabla p = p\,\nabla \log p$. Put in:

            $$\nabla J = \sum_a p(a)\; R(a)\,\nabla \log p(a)$$

            Read it aloud: *draw an answer, and raise its log-probability by as much as it was rewarded.* On
            average, this goes up the gradient of the mean reward. It is called the **policy gradient**; a
            *policy* is a model that chooses what to do. Note what is not needed: a gradient of $R$. The
            reward may come from any program, or from a person.

            And the mean of the group? A constant $b$ that is subtracted from all rewards changes nothing on
            average, because the probabilities always sum to 1:

            $$\sum_a p(a)\; b\,\nabla \log p(a) = b \sum_a \nabla p(a) = b\,\nabla 1 = 0$$

            Such a $b$ is called a *baseline*. So we may write $R(a) - b$ for $R(a)$:

            $$\nabla J = \sum_a p(a)\,(R(a) - b)\,\nabla \log p(a)$$

            With the mean as $b$, the factor is the advantage. Where it is positive, a step up the gradient raises
            log p(a). Where it is negative, the step lowers it. This is the rule above.

            Check it with numbers. Lesson 2 has the gradient of -log p(a) for the logits: p minus one-hot. So
            $\nabla \log p(a)$ is one-hot minus p. Put this into the sum, for the logit of B. The one-hot is 1 only where a
            is B, and gives p(B) R(B). The other part is -p(B) in every term, and gives -p(B) J. Together:
            p(B) · (R(B) - J).
            """
        ),
    ])  # fmt: skip
    return


@app.cell
def _(mo, torch):
    logits = torch.tensor([0.5, 0.3, 0.2]).log().requires_grad_()
    rewards = torch.tensor([0.0, 1.0, 0.0])
    p = logits.softmax(-1)
    mean_reward = (p * rewards).sum()
    mean_reward.backward()
    by_hand = p * (rewards - mean_reward)
    both = [[round(x, 2) for x in found.tolist()] for found in (logits.grad, by_hand)]
    mo.md(f"autograd: `{both[0]}`, by hand: `{both[1]}`")
    return


@app.cell(hide_code=True)
def _(mo):
    steps_up = mo.ui.slider(0, 40, value=1, label="steps", show_value=True)
    right_one = mo.ui.radio(["A", "B", "C"], value="B", label="right is", inline=True)
    mo.vstack([
        mo.md(
            """
            Both agree: A falls, B rises, C falls a little. The logit of A moves more than that of C, since A is
            drawn more often. Now take steps in this direction. What happens if C is right, or A?
            """
        ),
        mo.hstack([steps_up, right_one], justify="start", wrap=True),
    ])  # fmt: skip
    return right_one, steps_up


@app.cell(hide_code=True)
def _(BLUE, GREY, LIGHT, OLIVE, ORANGE, mo, np, plt, right_one, steps_up, torch):
    _logits = torch.tensor([0.5, 0.3, 0.2]).log()
    _rewards = torch.tensor([float(name == right_one.value) for name in "ABC"])
    _path = []
    for _ in range(41):
        _p = _logits.softmax(-1)
        _path.append(_p.tolist())
        _logits = _logits + 1.0 * _p * (_rewards - (_p * _rewards).sum())
    bandit, (_bars, _lines) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    _inks = {"A": BLUE, "B": OLIVE, "C": GREY} | {right_one.value: ORANGE}
    _where = np.arange(3)
    _now = _path[steps_up.value]
    _bars.bar(_where - 0.2, _path[0], 0.38, color=LIGHT)
    _bars.bar(_where + 0.2, _now, 0.38, color=[_inks[n] for n in "ABC"])
    for _i in range(3):
        _bars.text(_i + 0.2, _now[_i] + 0.02, f"{_now[_i]:.2f}", ha="center", fontsize=11)
    _bars.set(xticks=_where, xticklabels=list("ABC"), ylim=(0, 1.1), ylabel="probability")
    _bars.set_title(f"light: before. After {steps_up.value} step{'s' * (steps_up.value != 1)}", fontsize=12)
    for _i, _name in enumerate("ABC"):
        _line = [q[_i] for q in _path]
        _lines.plot(_line, color=_inks[_name], lw=2)
        _lines.text(-1, _line[0], _name, va="center", ha="right", color=_inks[_name])
    _lines.axvline(steps_up.value, color=GREY, lw=1)
    _lines.set(xlabel="steps", ylim=(0, 1.1), xlim=(-4, 41), yticks=[])
    mo.vstack([
        bandit,
        mo.md(
            "A rare right answer rises slowly at first, because its step has the factor p(a): it is rarely drawn. An answer with probability 0 would never "
            "be drawn, and could never be learned. This is why reinforcement comes last: the model first has to "
            "answer right now and then."
        ),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(predict):
    equal_guess = predict(
        "A group has eight answers. All eight are right, so each has the reward 1. What does the step do to their "
        "probabilities?",
        [
            "nothing: every advantage is 0",
            "it raises all eight",
            "it raises the likeliest and lowers the others",
            "it lowers all eight",
        ],
    )
    equal_guess
    return (equal_guess,)


@app.cell(hide_code=True)
def _(equal_guess, mo, reply):
    offset = mo.ui.slider(0, 10, value=5, label="added to every reward", show_value=True)
    mo.vstack([
        reply(
            equal_guess,
            "nothing: every advantage is 0",
            "No answer is better than its group. The same holds if all eight are wrong. So a question teaches "
            "something only if it is answered right sometimes, and sometimes not.",
            wrong={
                "it raises all eight": "So it would be without the mean. With it, each reward is compared with the "
                "others, and 1 - 1 = 0.",
                "it raises the likeliest and lowers the others": "All eight have the same reward. Nothing tells one from "
                "another.",
                "it lowers all eight": "An advantage below 0 needs an answer that is better than this one.",
            },
        ),
        mo.md(
            """
            ## Why subtract the mean?

            On average, a constant changes nothing. But a step does not see the average. It has a group of eight drawn
            answers, and what they say is noisy. Below, 4,000 such groups are drawn for the three answers with B
            right. Each group gives an estimate of how far the logit of B should rise. Add a constant to all
            rewards, such as a teacher who gives 5 for wrong and 6 for right.
            """
        ),
        offset,
    ])  # fmt: skip
    return (offset,)


@app.cell(hide_code=True)
def _(BLUE, GREY, ORANGE, mo, np, offset, package_code, advantages, plt, torch):
    _generator = torch.Generator().manual_seed(0)
    _p = torch.tensor([0.5, 0.3, 0.2])
    _drawn = torch.multinomial(_p.expand(4000, 3), 8, replacement=True, generator=_generator)
    _rewards = (_drawn == 1).float() + offset.value
    _slope = (_drawn == 1).float() - _p[1]  # of log p(drawn), for the logit of B
    _plain = (_rewards * _slope).mean(1).numpy()
    _better = (advantages(_rewards.flatten(), 8).view(-1, 8) * _slope).mean(1).numpy()
    noise, _axes = plt.subplots(figsize=(8, 3.3), layout="constrained")
    _edges = np.arange(-2.6, 3.8, 0.1) + 0.05
    _axes.hist(_plain, _edges, color=BLUE, alpha=0.6)
    _axes.hist(_better, _edges, color=ORANGE, alpha=0.8)
    _axes.axvline(0.21, color=GREY, lw=1)
    _axes.set(xlabel="how far the logit of B should rise, from one group", ylabel="groups", xlim=(-2.6, 3.6))
    _axes.text(0.98, 0.9, f"rewards as they are\nspread {_plain.std():.2f}", color=BLUE, ha="right", va="top", transform=_axes.transAxes)
    _axes.text(0.02, 0.9, f"minus the mean of the group\nspread {_better.std():.2f}", color=ORANGE, ha="left", va="top", transform=_axes.transAxes)
    mo.vstack([
        noise,
        mo.md(
            f"""
            Both histograms lie around nearly the same place: {_plain.mean():.2f} and {_better.mean():.2f} on average (grey: the
            true 0.21). But with a constant in it, a single group may well say the opposite. The constant tells the
            model: everything you did was good, do more of whatever you did. Without the mean, that drowns the difference
            between right and wrong. (The mean of a group is not quite a constant, because it
            contains the answer itself. So the orange average is 7/8 of the true one. The direction stays right.)

            `advantages` is the second exercise. Its option `normalize` also divides by the standard deviation of the
            group. Without it, one right answer among eight has the advantage 0.88, and each of four right ones 0.50. With
            it they have 2.47 and 0.94: a rare success counts even more. *GRPO* (group relative policy optimization, see the papers)
            does this.
            """
        ),
        package_code(advantages),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## A model that learns by reward

    Now a real model. An answer is now several tokens, drawn one after the other. Its
    probability is the product of theirs, so its log-probability is the sum of theirs. The policy gradient
    therefore raises the log-probability of *every* token of a good answer, by the advantage of the whole answer.
    That is rough: some of the tokens may have had no part in the success. Over many answers this evens out.

    To let the model answer a question is called a **roll-out**. One step is: draw 16 questions. Make 8 roll-outs
    of each. Reward them, subtract the mean of each group, and take one step of the optimizer. No demonstration
    is needed, only questions and a program that checks.
    """)
    return


@app.cell
def _(
    END,
    Policy,
    PolicyConfig,
    share_right,
    advantages,
    answer_batch,
    dialogue_ids,
    copy,
    largest,
    log_probabilities,
    optimizer_of,
    questions,
    roll_out,
    said,
    torch,
    update,
):
    def reinforce(start, reward, steps, beta=0.0, rates=(0.003, 0.008), seed=0):
        """Learn from a reward. Gives the model, and what each step was like."""
        model, asked, curves = copy.deepcopy(start), questions(f"reinforce {seed}"), []
        policy, optimizer = Policy(model, PolicyConfig(beta=beta)), optimizer_of(model, *rates)
        for step in range(steps):
            some = [next(asked) for _ in range(16)]
            prompts = [dialogue_ids(q) for q in some]
            answers = roll_out(  # 8 to each of 16 questions, of at most 8 tokens
                model, prompts, {END}, max_new_tokens=8, seed=1000 * seed + step, copies=8
            )
            rewards = [
                reward(said(a.ids), largest(some[n // 8])) for n, a in enumerate(answers)
            ]
            better = advantages(torch.tensor(rewards), group_size=8)
            ids, targets = answer_batch([prompts[n // 8] + a.ids for n, a in enumerate(answers)])
            with torch.no_grad():  # needed if beta is not 0: see below
                before = log_probabilities(start(ids), targets)
            loss = policy(ids, targets, advantage=better, reference=before) / len(answers)
            update(optimizer, loss, rates[0] * (1 - 0.8 * step / steps))
            drawn = [x for a in answers for x in a.entropies]
            point = {
                "step": step + 1,
                "reward": sum(rewards) / len(rewards),
                "length": len(drawn) / len(answers),
                "entropy": sum(drawn) / len(drawn),
            }
            if step % 8 == 7:
                point["accuracy"] = share_right(model)
            curves.append(point)
        return model, curves

    return (reinforce,)


@app.cell
def _(equal, mo, reinforce, tuned):
    with mo.status.spinner("15,000 answers"):
        reinforced, honest_curves = reinforce(tuned, equal, steps=120)
    return honest_curves, reinforced


@app.cell(hide_code=True)
def _(
    BLUE,
    GREY,
    OLIVE,
    ORANGE,
    Policy,
    share_right,
    honest_curves,
    mo,
    np,
    package_code,
    plt,
    reinforced,
    tuned,
):
    def smooth(values, width=9):
        """A running mean, as long as the values."""
        padded = np.pad(values, width // 2, mode="edge")
        return np.convolve(padded, np.ones(width) / width, mode="valid")

    def curves_drawn(axes, curves, name, ink, label):
        """One number of each step, raw and smooth."""
        steps, values = [c["step"] for c in curves], [c[name] for c in curves]
        axes.plot(steps, values, color=ink, alpha=0.25, lw=1)
        axes.plot(steps, smooth(values), color=ink, lw=2.2, label=label)
        axes.set(xlabel="step", title=label)

    learned, _axes = plt.subplots(1, 3, figsize=(8.6, 3.1), layout="constrained")
    curves_drawn(_axes[0], honest_curves, "reward", BLUE, "mean reward")
    curves_drawn(_axes[1], honest_curves, "entropy", ORANGE, "entropy, nats a token")
    curves_drawn(_axes[2], honest_curves, "length", OLIVE, "tokens of an answer")
    _seen = [c for c in honest_curves if "accuracy" in c]
    _axes[0].plot([c["step"] for c in _seen], [c["accuracy"] for c in _seen], "o", color=GREY, ms=4)
    _axes[0].set_ylim(0, 1.03)
    _axes[1].set_ylim(0)
    _axes[2].set_ylim(0)
    mo.vstack([
        learned,
        mo.md(
            f"""
            Grey dots: the share of the held-out questions that are answered right. It rose from {share_right(tuned):.1%} to
            **{share_right(reinforced):.1%}**, without a single further demonstration. Everything was learned by trying.

            Look at the **entropy** in the middle. Lesson 5 used the word for a text. Here it says how undecided the
            model is about the next token: 0 if only one token can come, and more the more evenly the probability
            is spread. When a rare answer is raised, entropy can rise at first. But whatever is rewarded is drawn more often and
            so raised again, until one answer holds nearly all the probability. That is what
            learning looks like, and it is a danger, too. A model that always gives the same answer gets eight
            equal answers. Every advantage is 0, and it learns nothing any more, even if its answer is only half good.
            A lower learning rate helps, and so do more questions in a step (less noise, so fewer answers win by chance), and a higher temperature in the roll-outs.

            The loss is a module of the package. `clip` and `old` matter only if the same answers are used for several updates (PPO, *proximal policy optimization*, see the papers).
            Without the options it is minus advantage times
            log-probability, summed over the targets that count.
            """
        ),
        package_code(Policy),
        mo.md(
            "Around it, `training/policy.py` does what the cell above does, with everything that a long run needs: "
            "it can be stopped and resumed, and it writes down reward, length, entropy and distance."
        ),
    ])  # fmt: skip
    return curves_drawn, smooth


@app.cell(hide_code=True)
def _(dialogue_ids, held_out, largest, mo, reinforced, torch, tuned):
    def first_token(model, question):
        """Its probabilities for the first token of an answer."""
        with torch.no_grad():
            return model(torch.tensor([dialogue_ids(question)]))[0, -1].softmax(-1)

    _changed = [q for q in held_out if first_token(tuned, q).argmax() != first_token(reinforced, q).argmax()]
    _fixed = [q for q in _changed if int(first_token(reinforced, q).argmax()) == int(largest(q))]
    interesting = (_fixed or held_out)[:12]
    which = mo.ui.slider(0, len(interesting) - 1, value=0, label="question number", show_value=True)
    mo.vstack([
        mo.md("These are held-out questions that fine-tuning got wrong and reinforcement got right:"),
        which,
    ])  # fmt: skip
    return first_token, interesting, which


@app.cell(hide_code=True)
def _(BLUE, LIGHT, first_token, interesting, largest, mo, np, plt, reinforced, tuned, which):
    _q = interesting[which.value]
    _before, _after = (first_token(m, _q)[:10].numpy() for m in (tuned, reinforced))
    answer_bars, _axes = plt.subplots(figsize=(8, 2.9), layout="constrained")
    _axes.bar(np.arange(10) - 0.2, _before, 0.4, color=LIGHT, label="after fine-tuning")
    _axes.bar(np.arange(10) + 0.2, _after, 0.4, color=BLUE, label="after reinforcement")
    _axes.set(xticks=range(10), xlabel=f"the answer to {_q}?", ylabel="probability", ylim=(0, 1.03))
    _axes.get_xticklabels()[int(largest(_q))].set_fontweight("bold")
    _axes.legend(frameon=False, loc="upper left", fontsize=11)
    mo.vstack([answer_bars])
    return


@app.cell
def _(demonstration_batches, copy, practise, questions, tuned):
    many = [q for q, _ in zip(questions("many"), range(3000), strict=False)]
    shown_many = practise(copy.deepcopy(tuned), demonstration_batches(many), steps=120, lr=0.005)
    return many, shown_many


@app.cell(hide_code=True)
def _(share_right, base, mo, more_of_it, reinforced, shown_many, tuned):
    _rows = [
        ("base model", base, ""),
        ("fine-tuned on 12 demonstrations", tuned, "800"),
        ("... and 150 steps more of the same", more_of_it, "4,800"),
        ("... or 120 steps of reinforcement", reinforced, "15,360"),
        ("... or 120 steps with 3,000 demonstrations", shown_many, "3,840"),
    ]
    _lines = "\n".join(f"| {name} | **{share_right(m):.1%}** | {count} |" for name, m, count in _rows)
    mo.vstack([
        mo.md(
            """
            ## Demonstrations or reward?

            Was it worth it? Here are all models so far, and one more: the fine-tuned model, trained on with
            3,000 demonstrations. (Our program can write them. In the real world somebody would have to.)
            """
        ),
        mo.md("| | right | answers read in these steps |\n|:---|---:|---:|\n" + _lines),
        mo.md(
            """
            Repeated answers count each time: a step of fine-tuning reads 32 demonstrations, a step of reinforcement 128
            answers. Imitating 3,000 demonstrations gets about as far as the reward, from a quarter of the answers. That is no
            accident. A demonstration says which token is right, out of all of them. A reward is one
            number about a whole answer, after it has been tried. But the reward needed only twelve demonstrations. So:

            - **Write demonstrations** as long as you can get many good ones. The model learns the form and the easy cases
              quickly. They are the only way as long as it never answers right, because then no reward ever differs.
            - **Use a reward** where checking is much cheaper than writing: proofs, programs that have tests, games.
              There is no end of questions. And the model can become better than whoever wrote the demonstrations.
            - More steps on the same few demonstrations are rarely worth anything.
            """
        ),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo, predict):
    hole_guess = predict(
        "We take this reward, and train in the same way as before. What will the model do?",
        [
            "write many digits in one answer",
            "answer as before: the right digit alone gets 1",
            "repeat the question",
            "stop answering",
        ],
    )
    mo.vstack([
        mo.md(
            """
            ## A reward with a hole

            Real answers are longer: "I think it is 8." A reward that wants the answer to *equal* 8 would call this wrong. So
            somebody writes a kinder one, `contains`: 1 if the right digit occurs *somewhere* in the answer. It looks
            harmless. Every right answer gets 1, as before.
            """
        ),
        hole_guess,
    ])  # fmt: skip
    return (hole_guess,)


@app.cell
def _(contains, mo, reinforce, tuned):
    betas = (0.0, 0.03, 0.1, 0.3)  # 0: only the reward counts. The others are for the next section
    with mo.status.spinner("four times 7,680 answers"):
        fast = 0.005, 0.02  # higher rates, to see it sooner
        holed = {beta: reinforce(tuned, contains, 60, beta, fast, seed=2) for beta in betas}
    return betas, holed


@app.cell(hide_code=True)
def _(
    BLUE,
    ORANGE,
    share_right,
    likeliest_answers,
    contains,
    held_out,
    hole_guess,
    holed,
    mo,
    package_code,
    plt,
    reply,
    smooth,
):
    _model, _curves = holed[0.0]
    hacked, (_left, _right) = plt.subplots(1, 2, figsize=(8.2, 3.2), layout="constrained")
    _left.plot([c["step"] for c in _curves], smooth([c["reward"] for c in _curves]), color=ORANGE, lw=2.5)
    _seen = [c for c in _curves if "accuracy" in c]
    _left.plot([c["step"] for c in _seen], [c["accuracy"] for c in _seen], "-o", color=BLUE, lw=2, ms=4)
    _left.text(40, 0.93, "reward", color=ORANGE, va="top")
    _left.text(40, 0.08, "really right", color=BLUE)
    _left.set(xlabel="step", ylim=(-0.02, 1.03))
    _right.plot([c["step"] for c in _curves], smooth([c["length"] for c in _curves]), color="#7a9a3a", lw=2.5)
    _right.set(xlabel="step", title="tokens of an answer", ylim=(0, 8.5))
    _table = "\n".join(f"| `{q}?` | `{a}` |" for q, a in zip(held_out[:4], likeliest_answers(_model, held_out[:4]), strict=True))
    mo.vstack([
        reply(
            hole_guess,
            "write many digits in one answer",
            "Whoever says everything also says what is right. Nobody told the model so. A few longer answers "
            "happened to be drawn, they were rewarded more often than their group, and they were raised.",
            wrong={
                "answer as before: the right digit alone gets 1": "It does, if the model is sure of the digit. Where it is "
                "not, a second digit raises the mean reward, and a third one more.",
                "repeat the question": "That would earn 1 every time, too: the largest digit is in it. But it is more to learn. "
                "The model finds something simpler first: the largest of four digits is 6, 7, 8 or 9 in 87 % of the questions.",
                "stop answering": "An empty answer contains no digit, so its reward is 0.",
            },
        ),
        hacked,
        mo.md(
            f"| question | the model answers |\n|:---|:---|\n{_table}\n\n"
            f"The reward says {share_right(_model, contains):.0%}. Really right are **{share_right(_model):.0%}**. This is "
            "**reward hacking**: the policy has found what the reward pays for, and that is not what was meant. No "
            "program is broken, and the curve of the reward looks excellent. Only somebody who reads the answers, or a "
            "second measure that is not trained on, will notice."
        ),
        package_code(contains),
        mo.md(
            """
            Most rewards have holes, and longer training finds more of them. Judges who like thorough answers get
            long ones. A program that is rewarded for passing tests may learn to recognise the tests. So: read what is
            drawn, measure with something else, and look at the length.
            """
        ),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    pull = mo.ui.slider(steps=[0.0, 0.03, 0.1, 0.3], value=0.1, label="beta", show_value=True)
    mo.vstack([
        mo.md(
            r"""
            ## How far may it move? The reference model

            One thing helps in most cases. Keep a frozen copy of the model from before: the **reference model**.
            It writes sensible answers. Measure how far the policy has moved away from it, and make distance cost reward. This is the **KL penalty**. It pulls the policy back, so it is also called the *pull*.

            The distance is the **KL divergence**. The policy draws
            tokens. For each of them take log p - log q, where p is its probability by the policy and q the one by the
            reference model. The mean of this is the distance of one token. An example: there are two
            answers. The policy gives each 0.5; the reference model gives 0.9 and 0.1. Then the distance is
            0.5 · log(0.5 / 0.9) + 0.5 · log(0.5 / 0.1) = 0.51 nats. It is 0 only if both models agree.

            The distances of all tokens of an answer are added, so a long answer that the reference model would not write
            costs much. Training then raises reward minus *beta* times this sum. You see the same reward with a hole, with four values of beta.
            """
        ),
        pull,
    ])  # fmt: skip
    return (pull,)


@app.cell(hide_code=True)
def _(
    BLUE,
    LIGHT,
    ORANGE,
    share_right,
    likeliest_answers,
    betas,
    contains,
    distance,
    held_out,
    holed,
    math,
    mo,
    np,
    package_code,
    plt,
    pull,
):
    assert math.isclose(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1), 0.51, abs_tol=0.005)
    leash, _axes = plt.subplots(figsize=(8, 3.1), layout="constrained")
    _where = np.arange(len(betas))
    _paid = [share_right(holed[beta][0], contains) for beta in betas]
    _right = [share_right(holed[beta][0]) for beta in betas]
    _edges = ["black" if beta == pull.value else "none" for beta in betas]
    _axes.bar(_where - 0.2, _paid, 0.38, color=ORANGE, edgecolor=_edges, lw=2)
    _axes.bar(_where + 0.2, _right, 0.38, color=BLUE, edgecolor=_edges, lw=2)
    for _i in range(len(betas)):
        _axes.text(_i - 0.2, _paid[_i] + 0.02, f"{_paid[_i]:.0%}", ha="center", fontsize=11, color=ORANGE)
        _axes.text(_i + 0.2, _right[_i] + 0.02, f"{_right[_i]:.0%}", ha="center", fontsize=11, color=BLUE)
    _axes.set(xticks=_where, xticklabels=[f"beta = {beta:g}" for beta in betas], ylim=(0, 1.15), yticks=[])
    _axes.spines["left"].set_visible(False)
    _axes.set_title("orange: what the reward says. Blue: really right", fontsize=12)
    _answers = ", ".join(f"`{a}`" for a in likeliest_answers(holed[pull.value][0], held_out[:6]))
    mo.vstack([
        leash,
        mo.md(
            f"""
            With beta = {pull.value:g} the answers to {", ".join(f"`{q}?`" for q in held_out[:6])} are {_answers}.

            Without a pull (beta = 0) the policy is free to write anything that pays. With a larger beta, long answers cost more
            than they gain. If it is too large, the model may not move at all, and then it does not learn either.

            Be clear about what the pull does. It does not close the hole. Right and wrong are still what the reward says.
            It only keeps the policy near the answers of the reference model, which learned from demonstrations. A policy that trains for longer may
            still get through the hole. The real cure is a better reward.

            The package measures the distance for each token that was drawn, with a formula that has the same mean and
            less noise. With d = log q - log p it is exp(d) - d - 1. The mean of exp(d) over drawn tokens is 1, so the mean of
            the whole is that of -d, and it is never negative:
            """
        ),
        package_code(distance),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo, package_code, preference_loss):
    mo.vstack([
        mo.md(
            r"""
            ## Preferences: of two answers, one is better

            No program can say how good a poem is, or whether an answer is polite. People cannot give it a number
            either; but they can say which of two answers they like better. Such a judgement is a **preference**. There are
            two ways to use it.

            - Train a second model, the *reward model*, to predict what people would prefer. Then reinforce with its
              number as the reward. This is *RLHF*, reinforcement learning from human feedback. InstructGPT, the forerunner of ChatGPT, was
              trained in this way. The holes are now those of the reward
              model, so the pull to the reference model is needed.
            - Leave the reward model out, and train on the pairs directly (DPO, *direct preference optimization*). For each
              answer take how much likelier it is now than in the reference model, log p - log q. Subtract that of the rejected answer from that of the chosen one. The loss is
              $-\log \sigma(\beta \cdot \text{difference})$, where $\sigma(x) = 1/(1+e^{-x})$ turns a number into a probability:
              that a person prefers the chosen answer, as the model sees it. At the start both models are the same, so the
              difference is 0, the probability 1/2, and the loss log 2 = 0.69. It is nearly 0 if the chosen answer has gained
              much more. The reference
              model keeps the measure fair, because a long answer is unlikely in both models.
            """
        ),
        package_code(preference_loss),
        mo.md(
            """
            In the package it is one more objective, `--train.objective preference`, beside `answers` and `policy`. Its
            data are lines with `chosen` and `rejected`.
            """
        ),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo, predict):
    lora_guess = predict(
        "A matrix of GPT-2 has 768 columns and 2,304 rows: 1,769,472 weights. A has 8 rows of 768 numbers, B "
        "has 2,304 rows of 8 numbers. How many numbers do A and B have together?",
        step=1,
    )
    mo.vstack([
        mo.md(
            r"""
            ## LoRA: a large model, and few new numbers

            Fine-tuning all weights takes the memory of training: 16 bytes a weight (lesson 12). For a model with seven
            billion weights that is 112 GB. And every fine-tuned model is another whole copy.

            **LoRA** (*low-rank adaptation*) leaves each large matrix W as it is, frozen, and adds the product of two thin
            ones:

            $$y = W x + s\,B\,(A\,x)$$

            A is short and wide: it makes r numbers of x. B makes a whole vector of them again. The *rank* r is the number of values
            between A and B. It is small, such as 8. (It has nothing to do with the ranks of lessons 3 and 18.) s is a fixed
            scale, in the package 16 / r. Only A and B are trained. A frozen weight needs no gradient and no running means of AdamW: 4 bytes
            instead of 16. For seven billion weights that is 28 GB instead of 112, plus a little for A and B.
            Activations still need memory. To store a fine-tuned model, store A and B.
            """
        ),
        lora_guess,
    ])  # fmt: skip
    return (lora_guess,)


@app.cell(hide_code=True)
def _(lora_guess, mo, reply):
    rank = mo.ui.slider(1, 64, value=8, label="rank", show_value=True)
    mo.vstack([
        reply(
            lora_guess,
            8 * (768 + 2304),
            "8 · (768 + 2,304). That is 1.4 % of the matrix. In general: r times rows plus columns, where the "
            "matrix has rows times columns.",
            wrong={
                1769472: "That is the product B A written out. It has the size of W, but it is never written out in training.",
                6144: "That is A alone.",
                18432: "That is B alone.",
                8: "That is the number of values between A and B.",
            },
        ),
        rank,
    ])  # fmt: skip
    return (rank,)


@app.cell(hide_code=True)
def _(GREY, LIGHT, ORANGE, Rectangle, mo, package_code, plt, lora, rank):
    _r = rank.value
    _rows, _columns = 2304, 768
    thin, _axes = plt.subplots(figsize=(6.4, 4.8), layout="constrained")

    def _matrix(x, height, width, ink, text):
        _axes.add_patch(Rectangle((x, -height / 2), max(width, 6), height, facecolor=ink))
        _axes.text(x + width / 2, -1330, text, ha="center", va="top", fontsize=12)

    _matrix(0, _rows, _columns, LIGHT, f"W, frozen\n{_rows} x {_columns}")
    _axes.text(1060, 0, "+ s ·", ha="center", va="center", fontsize=14)
    _matrix(1350, _rows, _r, ORANGE, f"B\n{_rows} x {_r}")
    _axes.text(1600, 0, "·", ha="center", va="center", fontsize=16)
    _axes.add_patch(Rectangle((1750, -max(_r, 6) / 2), _columns, max(_r, 6), facecolor=ORANGE))
    _axes.text(1750 + _columns / 2, -1330, f"A\n{_r} x {_columns}", ha="center", va="top", fontsize=11)
    _axes.set(xlim=(-60, 2650), ylim=(-1800, 1250), xticks=[], yticks=[], aspect="equal")
    _axes.spines[["left", "bottom"]].set_visible(False)
    _one = _r * (_rows + _columns)
    _all = 12 * _r * (768 + 2304 + 768 + 768 + 768 + 3072 + 3072 + 768)
    mo.vstack([
        thin,
        mo.md(
            f"With rank {_r}, A and B have {_one:,} numbers, {_one / (_rows * _columns):.1%} of W. With LoRA on all four matrices of "
            f"all 12 blocks of GPT-2, {_all:,} numbers are trained, {_all / 124_439_808:.1%} of 124 million."
        ),
        mo.md(
            """
            How can so few be enough? The model knows nearly everything already. Fine-tuning changes how it uses that,
            and such a change needs few directions. With r = 8, B A can change the output in 8 directions only, and experiments
            show that this is often enough.

            Two details matter. **B begins at zero.** Then B A is zero, and the training begins with exactly the model
            as it was. A begins random. If both were zero, the gradient of each would be zero, because it is
            multiplied by the other, and nothing would ever move. And after the training, W + s B A can be
            *merged* into one matrix. The merged model is a plain GPT of the same size and speed; nobody can tell
            that LoRA was used.

            The forward pass is the third exercise. The brackets in B (A x) matter: B A would be as large as W.
            """
        ),
        package_code(lora),
    ])  # fmt: skip
    return


@app.cell
def _(GPT, TrainConfig, add_lora, base, copy, demonstration_batches, many, plain_tensors, practise, torch):
    torch.manual_seed(0)
    with_lora = add_lora(copy.deepcopy(base), TrainConfig(lora_rank=4), new_tokens=5)  # roles are new
    with_lora = practise(with_lora, demonstration_batches(many), steps=120, lr=0.02)
    merged = GPT(base.config)
    merged.load_state_dict(plain_tensors(with_lora))
    trained = sum(x.numel() for x in with_lora.parameters() if x.requires_grad)
    return merged, trained, with_lora


@app.cell(hide_code=True)
def _(LoRALinear, share_right, base, dialogue_ids, merged, mo, package_code, torch, trained, with_lora):
    with torch.no_grad():
        _ids = torch.tensor([dialogue_ids("3815", "8")])
        _far = (with_lora(_ids) - merged(_ids)).abs().max().item()
    mo.vstack([
        mo.md(
            f"Our base model, fine-tuned by LoRA with rank 4 on 3,000 demonstrations: {trained:,} of {base.num_parameters():,} "
            f"weights were trained ({trained / base.num_parameters():.0%}; a small model has thin matrices to begin with). The embeddings of the five special tokens are among them: the base "
            f"model has never read these tokens, and frozen they could not learn. It answers "
            f"**{share_right(with_lora):.0%}** of the held-out questions right, and after merging **{share_right(merged):.0%}**. The logits of "
            f"the two differ by {_far:.0e} at most: rounding."
        ),
        package_code(LoRALinear),
    ])  # fmt: skip
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## The whole of it: one command

    ```sh
    nanogpt assistant
    ```

    This goes through the same three stages in a larger world, with about four times as many weights. Its questions ask
    for sums, comparisons, copies, reversed and sorted words, and counts. The base model reads pages of statements. It is
    fine-tuned on 900 demonstrations, then reinforced, with eight answers to each question. As a control, the fine-tuned
    model gets more fine-tuning for as long as the reinforcement took. After each stage the command asks 1,200 questions that the model has never seen, and 1,200 more that are *longer*
    than all of training. A hash of the letters or numbers in a question decides whether it is held out, in every task
    and in every order. So no page and no demonstration contains them. It prints a table such as
    the one above, and at the end you can chat with the model.

    Three runs of it, which took less than four minutes each without the control (`--train.seed 1`, 2 and 3):

    | held-out questions right | seed 1 | seed 2 | seed 3 | longer ones |
    |:--|--:|--:|--:|--:|
    | base model | 0.0 % | 0.0 % | 0.0 % | 0.0 % |
    | fine-tuned on 900 demonstrations | 78.9 % | 75.9 % | 79.2 % | 3.0 to 4.4 % |
    | reinforced | **95.4 %** | **91.1 %** | **93.2 %** | 4.2 to 6.2 % |
    | control: fine-tuning for as long instead, on the same 900 | 81.9 % | | | 3.1 % |
    | fine-tuning on 18,000 demonstrations instead | **99.1 %** | | | 4.2 % |

    More steps on the same 900 gain little, as above. Reinforcement gains much more. With 18,000 demonstrations, more
    fine-tuning is even better. So demonstrations win where you have plenty, and a reward wins where you have few. No
    stage teaches questions that are longer than those in training.

    With your own conversations and GPT-2, put one conversation on each line of `chats.jsonl`:

    ```text
    {"messages": [{"role": "user", "content": "What is 17+25?"}, {"role": "assistant", "content": "42"}]}
    ```

    ```sh
    nanogpt train --init gpt2 --data.source chats.jsonl --data.batches padded --train.objective answers \\
        --train.lr 1e-4 --run runs/chats
    ```

    On a laptop replace `--train.lr 1e-4` by `--train.lora-rank 8 --train.lr 1e-3 --train.batch-size 1
    --model.context-length 256`: LoRA needs a higher learning rate. Then talk to it: `nanogpt chat runs/chats`.
    Reinforcement (`--init runs/chats --train.objective policy`) needs questions that a program can check, or a reward
    of your own.

    ## What is the same in large assistants, and what is not

    The three stages are the same: a base model, demonstrations, reinforcement. So are the tokens for roles, the
    targets that count, the policy gradient with the mean of a group (DeepSeek-R1 was trained in this way), the
    pull to a reference model, and LoRA. This is what you do not have here:

    - **What people want.** Here a program knows what is right. Most questions to a real assistant have no such
      program. Companies pay many people for demonstrations and preferences, and train reward models on them.
    - **Safety.** Nobody can do harm with the largest of four digits. A real assistant has to refuse some requests and must
      not refuse others. That is trained, tested by people who try to break it, and never finished.
    - **Knowledge and tools.** A fine-tuned base model knows what was in its texts, and no more. Real ones search, compute
      and run programs.
    - **Size.** Abilities such as following a new instruction come from the base model. Fine-tuning brings them out. It cannot
      put into a small model what it has never learned.
    - **Long chains of thought.** Our answer has one digit. Large models learn by reward to write pages of working before they
      answer. The method is the one that you have seen; the roll-outs are thousands of times as long.

    ## What you can say now

    A base model goes on with a text, so it answers a question with more questions. Role tokens say who speaks, and no
    text can forge them. Fine-tuning on conversations is next-token training in which only the tokens of the
    assistant count. Reinforcement tries answers and raises those that were better than their group; the
    mean is subtracted because it takes away noise and keeps the direction. A group with equal rewards teaches nothing. Entropy
    falls while a policy learns; if it reaches 0, learning ends. Write demonstrations where you can get many, and use a
    reward where checking is cheaper. A policy tends to find the holes in its reward. A pull to the reference model keeps it near sensible answers, and does not close the hole. LoRA
    trains two thin matrices beside each large one, and they can be merged into it.

    ## Questions
    """)
    return


@app.cell(hide_code=True)
def _(self_test):
    answers = self_test(19)
    answers
    return (answers,)


@app.cell(hide_code=True)
def _(answers, judged):
    judged(19, answers)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Your turn

    ```sh
    nanogpt exercise check answers-only
    nanogpt exercise check advantage
    nanogpt exercise check lora
    ```

    And three experiments in this notebook:

    1. Reinforce the base model: `reinforce(base, equal, steps=40)`. What is the mean reward, and why does it stay there?
    2. Write a reward of your own, a function of an answer and the expected answer, such as one that takes away 0.1 for each
       token. Use it with `reinforce`, and guess beforehand which answers you will get.
    3. Replace the rewards by random ones, `lambda answer, expected: random.random()`. What happens to accuracy and entropy?

    **Papers.** Williams 1992, "Simple Statistical Gradient-Following Algorithms", section 4 (REINFORCE, and subtracting
    a baseline). Ouyang et al. 2022, "Training language models to follow instructions with human feedback" (InstructGPT),
    section 3. Shao et al. 2024, "DeepSeekMath", section 4.1, compares answers of a group; DeepSeek-AI 2025, "DeepSeek-R1".
    Rafailov et al. 2023, "Direct Preference Optimization", section 4. Hu et al. 2021, "LoRA", section 4. Gao et al. 2022,
    "Scaling Laws for Reward Model Overoptimization", measures how reward and quality drift apart. Schulman 2020,
    "Approximating KL Divergence". Schulman et al. 2017, "Proximal Policy Optimization Algorithms".
    """)
    return


if __name__ == "__main__":
    app.run()
