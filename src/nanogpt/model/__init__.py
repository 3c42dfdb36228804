"""From ids to logits: the network. Nothing in here knows of text.

In the order to read it:

    layers      softmax, cross-entropy, norms, GELU, the feed-forward layers
    position    the three places where the order of tokens can enter a Transformer
    cache       the keys and values of earlier tokens
    attention   masks and self-attention, step by step and fused
    gpt         the block and GPT-2: the whole network on two pages

Around it:

    flex        attention that skips what a mask hides, for GPUs
    size        how much arithmetic a model takes
    lora        two thin matrices beside each large one, for fine-tuning
    build       a model from tensors that were read from a file
    trace       any activation by its name: recorded, or changed while the model runs
"""
