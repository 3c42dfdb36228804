"""The learning path: lessons, exercises, and the judge that knows the usual mistakes.

In the order to read it:

    exercise    an exercise, its known mistakes, and the judge
    exercises/  all of them, in the order in which a GPT is built
    judging     a learner's file in a process of its own, with limits
    play        a learner's functions in the real model
    lesson      what lessons are made of
    progress    what a learner has done so far
"""
