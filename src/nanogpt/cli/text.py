"""Text and tokens as a terminal can show them."""


def printable(text: str) -> str:
    """The text without control characters, which could steer the terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def visible(token: bytes) -> str:
    """A token as one printable string; bytes that are only part of a character in hexadecimal.

    >>> visible(b" king"), visible("é".encode()[:1])
    ('·king', '<c3>')
    """
    try:
        return printable(token.decode()).replace(" ", "·").replace("\n", "⏎")
    except UnicodeDecodeError:
        return f"<{token.hex()}>"
