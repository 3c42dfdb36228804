"""What each exercise asks for: the text of its stub, in place of the package's docstring.

A task says what every argument holds, what to give back and which errors to raise. It defines the
result in words and does not write down the solution.
"""

TASKS = {
    "value": """
        A number that remembers how it was computed.

        Four methods are yours: __add__, __mul__, tanh and backward. An operation gives a new Value
        that knows its inputs, as pairs of (input, local derivative): how much the result changes
        when this input changes a little. `other` may be a Value or a plain number; self.of(other)
        makes a Value of either. Operations do not change their inputs.

        backward takes no argument and gives None. It adds, to the `grad` of every number that this
        one was computed from, the derivative of this number with respect to that one. The grad of
        this number itself becomes 1. A number may have been used several times. backward may be
        called again, for the same result or for another one that shares with it only numbers
        without inputs: their gradients add up. `in_order(result)` is a list of all numbers that a
        result depends on, each after its own inputs; the result is last.

        >>> x, w = Value(3.0), Value(-2.0)
        >>> loss = (w * x + 1.0) ** 2
        >>> loss.backward()
        >>> loss.data, w.grad, x.grad
        (25.0, -30.0, 20.0)
    """,
    "merge": """
        Replace every occurrence of a pair by a new id, from left to right and without overlap.

        Args:
            ids: token ids: a list, a tuple or bytes. It stays as it is.
            pair: the two ids to look for, in this order and side by side.
            new_id: the id that takes the place of both.

        Returns a list, a new one even if there is nothing to merge. Tokens outside of
        the pair keep their order. A new id does not merge again, even if it is part of the pair.

        >>> merge([1, 1, 1, 2], (1, 1), 9)
        [9, 1, 2]
    """,
    "train": """
        Train a vocabulary: recount all pairs, merge the best one, repeat.

        Args:
            words: how often each word occurs, such as {b"low": 5}. Pairs are counted inside words
                only. A word that occurs five times counts five times; overlapping occurrences
                count, too: aaa holds the pair (a, a) twice.
            n_merges: how many merges to make, from 0. If no pair is left, there are fewer.

        Returns the merges in order, each as a pair of ids. Ids 0 to 255 are the single bytes. Merge
        number n, counted from 0, creates the id 256 + n, which stands for the byte strings of both
        parts joined. The best pair is the most frequent one. Among equally frequent pairs the one
        whose left byte string is greatest wins; if these are equal, too, the greatest right one.
        Byte strings compare as Python compares bytes.

        You may use `merge` of nanogpt.text.bpe, or your own.

        >>> train_naive({b"low": 5, b"lower": 2}, 2) == [(111, 119), (108, 256)]  # "ow", then "low"
        True
    """,
    "encode": """
        Encode a word with trained merges: do to it what training did, in the same order.

        Args:
            ids: the bytes of a word, as bytes or as a list of ids. It stays as it is. It may be
                empty.
            ranks: for each pair that merges, the id that it merges into. A lower id was learned
                earlier. The order of the mapping says nothing. A pair may contain ids of other
                merges. Ids can be of any size.

        Returns the ids of the tokens as a list. At each step, of all pairs that can merge, the one
        that was learned earliest merges, until no pair can merge.

        You may use `merge` of nanogpt.text.bpe, or your own.

        >>> encode_word(b"lower", {(111, 119): 256, (108, 256): 257})  # "ow", then "low"
        [257, 101, 114]
    """,
    "embed": """
        A vector for each token: that of the token itself and that of its position, added up.

        Args:
            ids: token ids, whole numbers (B, T): B texts of T tokens.
            wte: the token embeddings, (V, C): row i belongs to token i.
            wpe: the position embeddings, (context length, C): row t belongs to position t. The
                first token of each text is at position 0. T is at most the context length.

        Returns (B, T, C).

        >>> wte, wpe = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[10.0], [20.0]])
        >>> embed(torch.tensor([[2, 0]]), wte, wpe).flatten()
        tensor([13., 21.])
    """,
    "softmax": """
        Turn scores into positive weights that sum to 1 along an axis.

        Each weight is the exponential of its score, as a share of the sum of all exponentials along
        `dim`. Scores may be of any size, such as 1000 or -1000, and some may be minus infinity:
        their weight is 0. At least one score along `dim` is finite.

        Args:
            x: scores, a float tensor of any shape.
            dim: the axis along which the weights sum to 1; negative numbers count from the end.

        Returns a tensor of the shape of x.

        >>> softmax(torch.tensor([0.0, math.log(3)]))
        tensor([0.2500, 0.7500])
    """,
    "cross-entropy": """
        How surprised the model is by the right tokens: the mean of -log(probability), in nats.

        Args:
            logits: a score for each token of the vocabulary, (N, V). The probabilities of row n are
                the softmax of its scores. Scores may be of any size, such as 1000.
            targets: the right token of each row, whole numbers (N,) from 0 to V - 1.

        Returns the mean over the N rows, a tensor without axes.

        >>> cross_entropy(torch.tensor([[0.0, math.log(3)]]), torch.tensor([1]))  # -log 0.75
        tensor(0.2877)
    """,
    "loss-gradient": """
        The gradient of the loss with respect to the logits, worked out by hand, without autograd.

        The loss is that of the exercise cross-entropy: the mean over N rows of -log(probability of
        the target), where the probabilities are the softmax of the logits. The gradient says for
        each logit how fast the loss grows with it.

        Args:
            logits: a score for each token of the vocabulary, (N, V), of any size.
            targets: the right token of each row, whole numbers (N,) from 0 to V - 1.

        Returns a tensor (N, V). You may use `softmax` of nanogpt.model.layers, or your own.

        >>> cross_entropy_gradient(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
        tensor([[ 0.5000, -0.5000]])
    """,
    "top-k": """
        Rule out all but the k likeliest tokens (Fan et al. 2018).

        Args:
            logits: a score for each token, (B, V); each row is a choice of its own. Some may be
                minus infinity already. The tensor stays as it is.
            k: how many tokens to keep. 0 switches this off: nothing is ruled out. The same goes for
                a k of V or more.

        Returns logits of the same shape. A token that is ruled out has minus infinity, all others
        keep their score. Tokens as likely as the k-th stay, too, so there may be more than k.

        >>> keep_top_k(torch.tensor([[1.0, 3.0, 2.0]]), 2)
        tensor([[-inf, 3., 2.]])
    """,
    "average": """
        Replace each token by the mean of itself and all earlier tokens.

        Do it with one matrix (T, T) that is multiplied with x: row t says how much token t takes
        from each token. This is attention in which all visible tokens count the same.

        Args:
            x: the vectors of the tokens, (B, T, C): B texts of T tokens with C channels.

        Returns (B, T, C).

        >>> average(torch.tensor([[[2.0], [4.0], [9.0]]])).flatten()
        tensor([2., 3., 5.])
    """,
    "attention": """
        Scaled dot-product attention (Vaswani et al. 2017): mix the values of all keys.

        The score of a query and a key is their dot product, divided by the root of the head size.
        Softmax of the scores of one query, over all keys, gives its attention weights. The result
        for this query is the sum of the values, each times its weight.

        Args:
            q: queries (B, nh, T, hs): B texts, nh heads, T tokens, hs numbers each.
            k, v: keys and values (B, nh, S, hs). S may differ from T.
            mask: None, or a tensor that broadcasts to (B, nh, T, S). Booleans: True where a query
                may look at a key; the weight of all others is exactly 0, however low the scores
                are. Numbers: they are added to the scores.
            causal: whether to hide from each query the keys that come later. Then T equals S, and
                there is no mask.
            dropout: the share of the attention weights that F.dropout sets to 0. It is 0 outside of
                training.

        Returns (B, nh, T, hs).
    """,
    "mask": """
        The causal mask: which keys each of T queries may look at.

        Args:
            T: the number of tokens, from 1. Each token has a query and a key.

        Returns booleans (T, T): row t belongs to query t, column s to key s. True where the query
        may look: at its own token and at all earlier ones.
    """,
    "heads": """
        Multi-head attention: attend in n_head parts of the channels, each by itself.

        Args:
            x: the vectors of the tokens, (B, T, C).
            c_attn: a function such as a linear layer: x (B, T, C) -> (B, T, 3 C). Its first C
                channels are the queries, then come the keys, then the values.
            c_proj: a function that mixes the results of the heads: (B, T, C) -> (B, T, C).
            n_head: the number of heads. It divides C. Head 0 has the first hs = C / n_head channels
                of the queries, of the keys and of the values, head 1 the next hs, and so on.

        In each head: attention as in the exercise attention, and no token sees a later one. The
        results of the heads are joined in the same order, side by side, and go through c_proj.
        Returns (B, T, C). Nothing is added to x here: the block does that.

        You may use `attention` of nanogpt.model.attention, or your own.
    """,
    "layer-norm": """
        Give each vector mean 0 and variance 1, then scale and shift it (Ba et al. 2016).

        Mean and variance are those of the C numbers of one vector. The variance is the mean of the
        squared differences from the mean. The standard deviation is the root of variance plus eps,
        so that a vector of equal numbers is not divided by 0.

        Args:
            x: vectors (..., C), with any number of axes before the last.
            weight: the learned gain, (C,): each channel is multiplied by it.
            bias: the learned shift, (C,), added after that; or None for no shift.
            eps: a small number.

        Returns a tensor of the shape of x.
    """,
    "gelu": """
        GELU in the tanh approximation, the activation function of GPT-2 (Hendrycks & Gimpel 2016).

        x times a number from 0 to 1. This number is (1 + tanh(z)) / 2, where z is
        root(2 / pi) (x + 0.044715 x^3).

        Args:
            x: a float tensor of any shape, with numbers of any size.

        Returns a tensor of the shape of x.
    """,
    "block": """
        A Transformer block: attention, then the feed-forward layer.

        Four parts are there, made in __init__: the norms self.ln_1 and self.ln_2, attention
        self.attn(x, context), and the feed-forward layer self.mlp(x). Each takes x (B, T, C) and
        gives (B, T, C).

        forward is yours. Both layers add their result to the residual stream x, attention first.
        The input of each layer is normalized before, attention's by ln_1 and the other's by ln_2;
        the residual stream itself is not. `context` says what attention may see: pass it on as it
        is. x stays as it is; give a new tensor.
    """,
    "gpt": """
        The forward pass of GPT-2: from ids to a score for each possible next token.

        Args:
            ids: token ids, whole numbers (B, T).
            wte: the token embeddings, (V, C).
            wpe: the position embeddings, (context length, C); the first token is at position 0.
            blocks: a list of functions, each (B, T, C) -> (B, T, C). They have their residual
                connections and norms inside.
            ln_f: the final norm, (B, T, C) -> (B, T, C). It follows after the last block.

        Returns logits (B, T, V): the dot product of each final vector with each row of wte. No
        softmax: the loss and the sampler do that.
    """,
    "windows": """
        Walk through a text in order: the inputs and targets of one window after another.

        Args:
            ids: the token ids of a text, a numpy array (N,) of whole numbers, often uint16. It
                stays as it is.
            context_length: the length of a window, at least 1.
            stride: window n starts n * stride tokens after the first one.

        Yields pairs (inputs, targets), each an int64 array (T,). T is context_length, or N - 1 for
        a text that is too short for that. The target of each input is the next token of the text.
        Each token but the first is a target exactly once: where a window overlaps with earlier
        ones, the targets that were due before are -100. The last window is moved back, so that its
        last target is the last token. There are no more windows than needed; a text of one token
        has none.

        Raises UserError (of nanogpt.errors) for a stride below 1 or above context_length.

        >>> for x, y in sliding_windows(np.arange(8), context_length=4, stride=2):
        ...     print(x.tolist(), y.tolist())
        [0, 1, 2, 3] [1, 2, 3, 4]
        [2, 3, 4, 5] [-100, -100, 5, 6]
        [3, 4, 5, 6] [-100, -100, -100, 7]
    """,
    "masked-loss": """
        The loss where some targets do not count, such as padding.

        Args:
            logits: a score for each token of the vocabulary, (N, V), of any size.
            targets: the right token of each row, whole numbers (N,); -100 where there is nothing to
                predict. At least one target is real. The tensor stays as it is.
            reduction: "mean" for the mean over the real targets, "sum" for their sum, or "none" for
                the loss of each real target: (number of real targets,).

        The loss of a target is -log(probability of the target), in nats, as in the exercise
        cross-entropy. Rows whose target is -100 do not appear in the result in any way, not even
        if their scores are infinite.

        >>> logits = torch.tensor([[0.0, math.log(3)], [5.0, 1.0]])
        >>> cross_entropy(logits, torch.tensor([1, -100]))  # -log 0.75
        tensor(0.2877)
    """,
    "adamw": """
        Adam with decoupled weight decay (Kingma & Ba 2015; Loshchilov & Hutter 2019), by hand.

        update moves one parameter tensor, and gives None. It is called once for each tensor in each
        step, without gradients being recorded.

        Args of update:
            parameter: the weights. Change them in place.
            gradient: the gradient of the loss, of the same shape. It stays as it is.
            group: the settings: group["lr"], group["betas"] (beta1, beta2), group["eps"] and
                group["weight_decay"]. They may change from step to step.

        self.state[parameter] is a dictionary for this tensor, empty at first. Keep in it, under
        these names: "step", the number of steps so far, including this one; "exp_avg", the running
        mean of the gradient; "exp_avg_sq", the running mean of its square. Both means start at
        zeros of the shape of parameter. A running mean keeps the share beta of itself and takes the
        share 1 - beta of what is new: beta1 for the gradient, beta2 for the square. With torch's
        names either optimizer continues the other's run.

        A step: first the weights shrink by the share lr * weight_decay of themselves. Then each
        weight moves against the running mean, by lr times the mean divided by the root of the mean
        square plus eps (eps is added to the root). Both means are corrected for their start at 0
        before that: each is divided by the sum of the shares of all gradients in it, 1 - beta to
        the power of the step. What is stored stays uncorrected.
    """,
    "schedule": """
        The learning rate of a step.

        Args:
            step: the number of the step, counted from 0; it may be beyond the end.
            config: config.lr is the highest rate, config.min_lr the lowest. config.warmup_steps,
                from 0, is the length of the warm-up and config.max_steps the length of the run,
                warm-up included; they may be equal. config.schedule is the name of a schedule.

        Returns a number. In the warm-up the rate climbs in a straight line, by the same amount in
        each step: the first step is already above 0, and step warmup_steps, the first after the
        warm-up, has the full rate. After it, progress goes from 0 at step warmup_steps to 1 at step
        max_steps, and never above 1. SCHEDULES[config.schedule](progress, step, config), in
        nanogpt.training.optim, gives the share that is left of the way from min_lr to lr: 1 is lr,
        0 is min_lr. For "cosine", the usual one, it is half a cosine wave from 1 to 0.

        >>> config = TrainConfig(lr=1.0, min_lr=0.1, warmup_steps=4, max_steps=24)
        >>> [round(learning_rate(step, config), 3) for step in (0, 3, 4, 14, 24, 99)]
        [0.2, 0.8, 1.0, 0.55, 0.1, 0.1]
    """,
    "rope": """
        Rotate pairs of channels, each by its own angle (Su et al. 2021).

        Channel i is paired with channel i + hs / 2: together they are a point in the plane. It is
        rotated around the origin, counterclockwise: a point (1, 0) goes to (cos, sin).

        Args:
            x: queries or keys (B, nh, T, hs); hs is even. It stays as it is.
            cos, sin: the cosines and sines of the angles, one for each pair. Their last axis has
                hs / 2 numbers, and with the axes before it they broadcast with x: (hs / 2,),
                (T, hs / 2), or (B, 1, T, hs / 2) where rows stand at different positions.

        Returns a tensor of the shape of x.

        >>> x = torch.tensor([1.0, 5.0, 0.0, 0.0]).view(1, 1, 1, 4)
        >>> apply_rotary(x, torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])).flatten().tolist()
        [0.0, 5.0, 1.0, 0.0]
    """,
    "full-mask": """
        Which keys each query may look at: the future hidden, and what else is asked for.

        Args:
            new: the number of queries, T. They belong to the last `new` of the `known` tokens; the
                earlier ones are in a cache.
            known: the number of keys, S: one for each token.
            window: how far back a token sees: with window=2 itself and one token before it. 0 means
                no limit.
            same: None, or booleans (B, T, S): True where query and key are of one document. A token
                sees no other document. Padding is of no document, not even the same as itself; but
                every token sees itself, so that no row is empty.
            device: where to make the mask; None is torch's default.

        Returns booleans (T, S), or with `same` (B, 1, T, S): the axis of 1 is for the heads. True
        where a query may look at a key. No token sees a later one, whatever else is given.

        >>> attention_mask(2, 3, window=2)
        tensor([[ True,  True, False],
                [False,  True,  True]])
    """,
    "cache": """
        The KV cache: keys and values of the tokens so far, so that they are computed once.

        __init__ has made the memory: self.keys and self.values, each (n_layer, B, nkv, context
        length, hs), self.pos (B, context length), and self.length = 0, the number of tokens that
        are in the cache. What lies after the first self.length tokens means nothing. `clear` sets
        the length to 0.

        In a forward pass the model asks for `key_positions(pos)`, then calls `update(layer, k, v)`
        for each layer, then `advance(pos)` once. Three methods are yours:

        update stores the keys and values of T new tokens, k and v (B, nkv, T, hs), for one layer,
        after those that are in the cache. It gives all so far, old and new, as a pair (keys,
        values), each (B, nkv, S, hs). It does not change self.length: the other layers follow.

        key_positions gives the positions of all keys, old and new, (B, S), and changes nothing.
        `pos` holds the positions of the new tokens: (B, T), or (1, T) where all rows are alike.
        Positions are what was given, not places in the cache.

        advance makes the new tokens old: it stores their positions `pos`, (B, T) or (1, T), and
        adds them to self.length. It gives None.
    """,
    "grouped-heads": """
        Multi-head attention as the package has it: with groups, norm, rotation, cache and mask.

        forward and split_heads are yours. __init__ has made self.head_size (hs), self.groups (query
        heads for each key head), self.widths (the channels of queries, keys and values in c_attn's
        result), self.c_attn and self.c_proj (linear maps), self.qk_norm (whether to norm),
        self.rms_norm, self.dropout, and self.kernel(q, k, v, mask, causal), which is attention.

        forward takes x (B, T, C) and gives (B, T, C). In this order: c_attn, and its result split
        by self.widths; heads cut, (B, nh, T, hs) for queries and (B, nkv, T, hs) for keys and
        values; if self.qk_norm, queries and keys through self.rms_norm; rotation by
        context.position.rotate(q, k, context.pos), which gives queries and keys; if there is a
        context.cache, its update(context.layer, k, v), which gives all keys and values so far; each
        key head, and each value head, repeated for the self.groups neighbouring query heads that
        share it; the kernel with context.mask and context.causal; the heads joined; c_proj; and
        self.dropout.

        split_heads takes (B, T, n * hs) and gives (B, n, T, hs), for any number n of heads.
    """,
    "gpt-cached": """
        GPT-2. hidden_states is yours: all of the network but its head, with documents and a cache.

        Args of hidden_states:
            ids: token ids (B, T). With a cache they continue the text that it holds. Raises
                UserError (of nanogpt.errors) for ids that are not (B, T).
            documents: None, or the number of each token's document, 0 for padding. With a cache
                they cover the old tokens, too.
            cache: None, or a KVCache.

        Returns hidden states (B, T, C) of the new tokens.

        self.context(ids, documents, cache) works out where the tokens stand (context.pos) and what
        they may see, and raises UserError if they do not fit. self.wte(ids) gives token embeddings,
        self.wpe.embed(x, context.pos) adds the positions to x, and self.drop follows them. Then x
        goes through the blocks self.h, each called as block(x, context) with its own number in
        context.layer: replace(context, layer=number), counted from 0. After the last block, a cache
        has to be told that the tokens are through: cache.advance(context.pos). At the end the final
        norm self.ln_f.
    """,
    "all-reduce": """
        The sum of the tensors of all ranks, on every rank.

        All ranks call this function at once, each with its own tensor. rank.number is the number of
        this rank, from 0, and rank.size is the number of ranks, from 1. A rank knows its own tensor
        only, and two ways to others: rank.send(tensor, to) sends a tensor to rank number `to` and
        does not wait. rank.receive(source) waits for the next tensor from rank number `source`.
        Whatever is sent has to be received.

        Args:
            x: the tensor of this rank. All ranks have one shape, which may be any. It stays as it
                is.
            rank: this rank.

        Returns a tensor of the shape of x, the same on every rank. Any way that gives the sum
        passes; the judge says how much it sends.

        >>> run_ranks(2, lambda rank: all_reduce(torch.tensor([10.0**rank.number]), rank)).results
        [tensor([11.]), tensor([11.])]
    """,
    "average-gradients": """
        The gradient of the mean loss over all targets, where each rank has some of them.

        All ranks call this function at once. Each has computed the gradients of a mean: over its
        own targets. Padding makes the numbers of real targets unlike. Right is what one rank would
        get with all targets in one batch: every target weighs the same.

        Args:
            gradients: the gradient of each tensor of the model, in a list: those of the mean loss
                over this rank's own targets. On a rank without targets they are 0. They stay as
                they are.
            targets: the number of real targets of this rank, from 0. Some rank has one.
            rank: this rank, with rank.number and rank.size.

        Returns a list of tensors of the same shapes, the same on every rank. You may use
        all_reduce(x, rank) of nanogpt.learn.collectives, or your own.

        >>> two, six = torch.tensor([2.0]), torch.tensor([6.0])
        >>> mine = ([two], 1), ([six], 3)
        >>> run_ranks(2, lambda rank: average_gradients(*mine[rank.number], rank)).results
        [[tensor([5.])], [tensor([5.])]]
    """,
    "parallel-mlp": """
        The feed-forward layer of GPT-2, computed by n ranks together.

        All ranks call this function at once, with the same x. The layer has H hidden channels, and
        n divides H. Rank r computes the hidden channels from r H / n to (r + 1) H / n. It must not
        use rows or columns of the matrices that belong to other channels: in a real run they are
        not there.

        Args:
            x: the vectors of the tokens, (B, T, C), the same on every rank.
            w_fc, b_fc: the first linear map, from C to H channels: (H, C) and (H,).
            w_proj, b_proj: the second one, from H to C channels: (C, H) and (C,).
            rank: this rank, with rank.number and rank.size.

        Returns (B, T, C), the same on every rank: b_proj + w_proj gelu(w_fc x + b_fc), for each
        token. GELU is `gelu` of nanogpt.model.layers.

        Gradients have to come back, too: each rank needs the whole gradient of x, and that of its
        own rows and columns. Messages carry none. Two functions of nanogpt.learn.collectives do:
        copied(x, rank) gives x as it is, and on the way back adds up the gradients of all ranks.
        summed(x, rank) adds up x over all ranks, and on the way back gives the gradient as it is.
    """,
    "answers-only": """
        The targets that the assistant says, the end of each answer included.

        A row holds conversations, or a window cut from them: <|user|> 3 8 1 5 ? <|end|>
        <|assistant|> 8 <|end|>. Every message begins with the token of its role and ends with the
        same token, `end`. An answer begins after the token `assistant`. Its tokens are to be
        predicted, and its `end`, too. Whatever else is in the row is only read: questions, the
        tokens of roles, the ends of other messages, and what stands between documents.

        Args:
            ids: the tokens, whole numbers (B, T), a numpy array. It stays as it is. A window may
                begin and end anywhere. As long as a row has not shown the token `assistant`,
                nobody knows who speaks, and nothing counts.
            targets: the token after each of them, (B, T), some of them -100 already. They stay as
                they are.
            assistant: the id of the token that begins an answer.
            end: the id of the token that ends a message.

        Returns an array (B, T): the target where it counts, and -100 everywhere else.

        Here <|user|> is 7, <|assistant|> is 8, and <|end|> is 9:

        >>> ids, targets = np.array([[7, 1, 2, 9, 8, 3, 4]]), np.array([[1, 2, 9, 8, 3, 4, 9]])
        >>> answers_only(ids, targets, assistant=8, end=9).tolist()
        [[-100, -100, -100, -100, 3, 4, 9]]
    """,
    "advantage": """
        How much better each answer is than its group: the answers to the same question.

        Args:
            rewards: what each answer is worth, (N), any numbers. It stays as it is. The answers to
                one question follow each other.
            group_size: how many answers there are to each question, at least 2. It divides N.
            normalize: whether to divide by the standard deviation of the group, too. It is torch's,
                with n - 1, and 0.0001 is added to it.

        Returns the advantages, (N), in the order of the rewards. The advantages of a group sum to
        0.

        >>> advantages(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]), group_size=4)
        tensor([ 0.7500, -0.2500, -0.2500, -0.2500,  0.0000,  0.0000,  0.0000,  0.0000])
    """,
    "lora": """
        A linear layer and its correction of low rank (Hu et al. 2021): W x + bias + scale B (A x).

        To multiply B by A first would be right, but wasteful: the product is as large as W.

        Args:
            x: the vectors, (..., in), with any number of axes before the last one.
            weight: the matrix W, (out, in). `bias`: (out), or None if the layer has none.
            a: the matrix A, (r, in): it makes r numbers of each vector.
            b: the matrix B, (out, r).
            scale: the factor of the correction.

        Returns (..., out).

        >>> x = torch.tensor([1.0, 2.0])
        >>> a, b = torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0], [1.0]])
        >>> lora(x, torch.eye(2), None, a, b, scale=10.0)  # A x = 3, so B (A x) = (0, 3)
        tensor([ 1., 32.])
    """,
}
