"""How weights are found.

In the order to read it:

    optim       AdamW and Muon, parameter groups, learning-rate schedules
    objective/  what training makes smaller
    loop        the training loop
    start       starting a run, resuming it, initial weights, frozen parameters

Around it:

    checkpoint  what a run needs to go on, in files that are whole or absent
    pieces      blocks of tensors, of which many ranks write what one or many read
    execution   what is compiled, and what is computed twice to save memory
    policy      learning from rewards and preferences: what differs from the loop
    records     what a run writes down about itself
    snapshots   the weights at several moments, to watch a training again
    report      the picture and the samples that a run leaves
    trouble     a loss that blows up, a model that cannot be compiled
    load        open anything that was trained
    variants    every table of variants, by the setting that chooses from it
    plan        memory, time and cost of a run, before it starts
    gpus        GPUs and their links: what they promise, and what is reached
    cluster     layouts over many GPUs: memory, messages, time
    calibrate   measured steps put a plan right
    timing      how long a step takes on this machine
    threads     how many threads compute: all, or one where that is faster
    parallel/   many processes that train one model
"""
