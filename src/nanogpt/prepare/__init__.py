"""From any text to token files: streamed, in parallel, and resumable. A wing of the core."""
