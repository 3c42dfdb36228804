"""The page that the benchmarks write: docs/benchmarks.md, a part for each of them."""

import re
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def replace_part(part: str, page: Path = PAGE) -> None:
    """Put a part, which begins with its heading "## ...", in the place of the one before it.

    A new one goes to the end. All others stay. It is printed, too.
    """
    heading, text = part.partition("\n")[0], page.read_text()
    old = re.search(rf"^{re.escape(heading)}\n.*?(?=^## |\Z)", text, re.M | re.S)
    start, end = old.span() if old else (len(text), len(text))
    pieces = (text[:start].rstrip(), part.strip(), text[end:].strip())
    page.write_text("\n\n".join(filter(None, pieces)) + "\n")
    print(part)
