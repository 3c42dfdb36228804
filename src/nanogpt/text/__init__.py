"""From bytes to batches. Nothing in here knows of a model.

In the order to read it:

    bpe         byte-pair encoding as pure functions: count pairs, merge, encode a word
    places      where each pair stands in all words: what makes learning fast
    long_words  encoding words of thousands of bytes
    splitter    how text is cut into words, across whose borders nothing merges
    tokenizer   from text to ids and back: byte-level BPE, or one id per character
    encoding    the same for much text: word counts, batches in processes, endless streams
    formats     tokenizers from files: ours, GPT-2's, Hugging Face's, tiktoken's
    corpus      documents, and which of them are held out for validation
    tokenfiles  the ids of many texts on disk
    remote      token files in object storage, fetched once
    dataset     the token files of a run
    batches     how token files are cut into what the model is trained on
    conversations  messages with roles as ids, and which of them the assistant says
    pairs       preferences: two answers, of which one was chosen
    prompts     the questions of conversations, with the answers that are expected
    loader      the batches of the next step, made ahead

What feeds it:

    sources     every kind of file and data set, as a stream of documents
    worlds      toy languages whose entropy is known
    tutor       a world of questions whose answers can be checked
    prepare     sources into token files: in parallel, resumable
    statistics  what a tokenizer does to a corpus
    drawing     batches as a person can look at them
"""
