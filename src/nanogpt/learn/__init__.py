"""The learning path: lessons, exercises, and the judge that knows the usual mistakes.

In the order to read it:

    exercise    an exercise, its known mistakes, and the judge
    answers     what a candidate makes of a case, as plain data
    differences how a result differs from the right one, in words
    exercises/  all of them, in the order in which a GPT is built
    judging     a learner's file in a process of its own, with limits
    play        a learner's functions in the real model
    autograd    how a gradient arises, in plain Python
    plain       plain forms of what the package does with more options
    ranks       several machines in one process, as threads that send each other tensors
    collectives what many ranks do together, by hand: all-reduce, all-gather, reduce-scatter
    machines    how a training step is divided among ranks, in plain form
    lesson      the list of the lessons, and of the files to read
    models      small models that lessons train
    notebook    what a lesson shows: folded code, predictions, questions
    questions/  the questions at the end of each lesson, and their judge
    progress    what a learner has done so far
"""
