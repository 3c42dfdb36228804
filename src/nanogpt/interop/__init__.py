"""In and out of other projects.

huggingface  read GPT-2 from Hugging Face's files, by folder or by name
export       write a folder that Transformers opens
tokenizers   tokenizers for the packages tokenizers and tiktoken
compare      the same model in Transformers, beside ours
"""
