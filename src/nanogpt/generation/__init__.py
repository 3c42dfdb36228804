"""From logits to text.

In the order to read it:

    sampling    greedy, temperature, top-k, top-p, min-p, repetition penalty
    reader      texts that grow token by token, with a cache
    ahead       several tokens in one reading, guessed from the text itself
    stream      from tokens to text as it is made
    rollouts    many answers at once, with the probabilities with which they were drawn
    replies     answers to conversations, many at once
    packing     finished models, made faster: packed and int8 weights
"""
