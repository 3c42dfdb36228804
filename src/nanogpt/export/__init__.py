"""Wing: models and tokenizers in the formats of other projects."""
