"""In and out of other projects.

names        the settings and weights of a model under Transformers' names, both ways
huggingface  Hugging Face folders: read, fetch, write
tokenizers   tokenizers for the packages tokenizers and tiktoken
peft         what LoRA has trained, alone, for the package peft
compare      the same model in Transformers, beside ours
"""
