"""How good is a model?

loss        loss, perplexity and bits per byte of a text
documents   the loss of single documents
references  what simpler predictors reach on the same text
rewards     what an answer is worth beside the expected one
questions   how many answers to questions are right
novelty     how much of a generated text is copied from the training text
"""
