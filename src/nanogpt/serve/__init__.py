"""A trained model for programs, by the completions API that they know.

    settings   where the server listens, and its limits
    batching   texts of many requests grow in one batch: rows join and leave between steps
    requests   what a request may ask for, and what it means for the rows
    answers    from tokens to answers, whole or as a stream
    safety     who may ask: token, Host, Origin, sizes, headers
    app        the routes
    server     a port, and the server on it

`nanogpt serve` starts it (docs/serving.md).
"""
