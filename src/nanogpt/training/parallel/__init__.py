"""Many processes that train one model, as one process would.

In the order to read it:

    mesh        which process does what, and how they talk
    messages    what ranks send to each other, and what that means for gradients
    data        every rank a part of the batch
    shard       ranks share out the weights (FSDP)
    tensor      ranks share out the matrices, by heads and channels
    pipeline    ranks share out the layers
    context     ranks share out the sequences
    loop        the training loop of one rank

Around it:

    layout      which part of every tensor a rank holds
    checkpoint  what many ranks write while training goes on, and any number of them read
    limits      what cannot be shared out, said before anything starts

`cli/many` starts the processes of one machine, and says which of them died.
"""
