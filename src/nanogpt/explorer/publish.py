"""The page as one file: the model, what Python would answer, and all scripts inside.

It opens by a double click, asks nobody for anything, and its content policy allows it nothing but
its own script.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from safetensors.torch import save

from nanogpt.errors import UserError
from nanogpt.explorer.replay import replay
from nanogpt.explorer.runs import Run
from nanogpt.files import writing
from nanogpt.lab.circuit import find_circuit
from nanogpt.model.gpt import GPT
from nanogpt.text.splitter import PATTERNS
from nanogpt.text.tokenizer import BaseTokenizer, Tokenizer
from nanogpt.training.snapshots import halved

WEB = Path(__file__).parent / "web"
TEXT = "ROMEO: I have a"  # that the page begins with
MOST_HEADS = 32  # that are searched for a circuit; more would take minutes
MOST_ROWS = 1000  # of metrics; what a curve of a page's width can show

# An import or export as our modules write them; whatever else begins so is refused.
IMPORT = re.compile(r'^import (?:\{([^}]*)\}|\* as (\w+)) from "([^"]+)";$', re.MULTILINE)
EXPORT = re.compile(r"^export ((?:async )?function\*?|const|class) (\w+)", re.MULTILINE)
LEFT_OVER = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)


def publish(run: Run, page: str | Path, text: str = TEXT) -> int:
    """Write the page of a run as one file; its size in bytes.

    `text` is what the page begins with, and what its replay shows. The weights are rounded to
    float16. Raises UserError for a run that only Python can compute, and for a text that does not
    fit.
    """
    answers = answers_of(run, text)
    threads = {"engine/worker.js": bundle(WEB, ["engine/worker.js"])}
    data = {"text": text, "answers": answers, "threads": threads}
    content = one_file(WEB, data, title=f"{run.name}: inside a GPT").encode()
    with writing(page) as file:
        file.write(content)
    return len(content)


def answers_of(run: Run, text: str) -> dict[str, dict[str, Any]]:
    """What the page will ask for, by address: {"json": value} or {"base64": the bytes of a file}.

    Raises UserError as `publish` does.
    """
    model, tokenizer = run.open()
    about = run.about()
    if about["remote_only"]:
        raise UserError(
            f"{run.name} cannot be published: a page computes our own variants, up to 20 million "
            f"parameters; look at it with `nanogpt explore {run.source}`"
        )
    if isinstance(tokenizer, Tokenizer) and tokenizer.pattern not in PATTERNS:
        raise UserError(
            f"{run.name} cannot be published: its tokenizer cuts words by a pattern of its own, "
            f"and a page knows {', '.join(PATTERNS)}; use `nanogpt explore {run.source}`"
        )
    try:
        ids = tokenizer.encode(text)
    except UserError as error:  # it may be ours, of which an alphabet knows nothing
        raise UserError(f"--text {text[:40]!r}: {error}") from None
    if not 0 < len(ids) <= model.config.context_length:
        longest = model.config.context_length
        raise UserError(f"--text of {len(ids)} tokens: use 1 to {longest}")
    metrics = thinned(run.metrics())
    info: dict[str, Any] = {**run.info(), "steps": [], "metrics": metrics}
    if run.steps():
        info["replay"] = {"frames": list(replay(run, ids))}
    info["circuit"] = circuit_of(model, tokenizer)
    weights = save({name: halved(x) for name, x in model.state_dict().items()})
    place = "api/runs/" + quote(run.name, safe="!'()*~")  # as encodeURIComponent writes it
    return {
        "api/runs": {"json": [{**about, "steps": []}]},
        place: {"json": info},
        f"{place}/metrics": {"json": metrics},
        f"{place}/steps": {"json": []},
        f"{place}/tokenizer.json": {"json": tokenizer.to_dict()},
        f"{place}/model.safetensors": {"base64": base64.b64encode(weights).decode()},
    }


def circuit_of(model: GPT, tokenizer: BaseTokenizer) -> dict[str, Any]:
    """The circuit that copies repeated text, or {"error": why there is none}."""
    if model.config.n_layer * model.config.n_head > MOST_HEADS:
        return {"error": f"more than {MOST_HEADS} heads: run `nanogpt lab circuit`"}
    try:
        *_, found = find_circuit(model, tokenizer)
    except UserError as error:
        return {"error": str(error)}
    return asdict(found)


def thinned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every n-th row, so that MOST_ROWS are left, and each that has more than the one before."""
    n = -(-len(rows) // MOST_ROWS)
    usual = min((len(row) for row in rows), default=0)
    return [row for i, row in enumerate(rows) if i % n == 0 or len(row) > usual]


def one_file(web: Path, data: Mapping[str, Any], title: str) -> str:
    """index.html with its style, its scripts and `data` inside, which may hold any text."""
    script = bundle(web, ["published.js", "app.js"])
    style = (web / "style.css").read_text(encoding="utf-8")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{allowed}'; style-src 'unsafe-inline'; "
        "worker-src blob:; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    # In JSON a "<" stands inside of strings alone; written so, no text can end the element.
    held = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    parts = {
        '<meta charset="utf-8">': '<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        "<title>nanogpt explorer</title>": f"<title>{html.escape(title)}</title>",
        '<link rel="stylesheet" href="style.css">': f"<style>\n{style}</style>",
        '<script type="module" src="app.js"></script>': "",
        "</body>": f'<script type="application/json" id="published">{held}</script>\n'
        f'<script type="module">{script}</script>\n</body>',
    }
    page = (web / "index.html").read_text(encoding="utf-8")
    for place, content in parts.items():
        before, found, after = page.partition(place)
        assert found, f"index.html has no {place}"
        page = before + content + after
    return page


def bundle(web: Path, entries: list[str]) -> str:
    """Modules as one script: each becomes a function that is called once and gives its exports.

    A module comes after those that it imports. Only the forms of import and export that our
    modules use are known.
    """
    modules: dict[str, str] = {}  # path -> source, in the order in which they run
    for entry in entries:
        add_module(web, Path(entry), modules, [])
    numbers = {path: n for n, path in enumerate(modules)}
    script = ['"use strict";']
    for path, source in modules.items():
        names = [name for _, name in EXPORT.findall(source)]
        folder = Path(path).parent
        for match in IMPORT.finditer(source):
            number = numbers[resolved(folder, match[3])]
            source = source.replace(match[0], bound(match, number))
        body = EXPORT.sub(r"\1 \2", source)
        assert not LEFT_OVER.search(body), f"{path}: {LEFT_OVER.search(body)}"
        script.append(
            f"const m{numbers[path]} = (() => {{ // {path}\n{body}\n"
            f"return {{ {', '.join(names)} }};\n}})();"
        )
    # Inside of strings and comments "<\/" is "</"; nothing may end the element of the script.
    text = "\n".join(script).replace("</script", "<\\/script")
    assert "<!--" not in text
    return text


def add_module(web: Path, path: Path, modules: dict[str, str], open_: list[str]) -> None:
    """Add a module after all that it imports, directly or not."""
    name = path.as_posix()
    assert name not in open_, f"modules import each other: {' '.join([*open_, name])}"
    if name in modules:
        return
    source = (web / path).read_text(encoding="utf-8")
    for match in IMPORT.finditer(source):
        add_module(web, Path(resolved(path.parent, match[3])), modules, [*open_, name])
    modules[name] = source


def resolved(folder: Path, address: str) -> str:
    """The path of a module inside the web folder, as another one in `folder` names it.

    >>> resolved(Path("views"), "../engine/tensor.js")
    'engine/tensor.js'
    """
    parts = list(folder.parts)
    for part in address.split("/"):
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def bound(match: re.Match[str], number: int) -> str:
    """An import as a line that takes the names from what the module with this number gave."""
    if match[2]:
        return f"const {match[2]} = m{number};"
    return f"const {{{match[1].replace(' as ', ': ')}}} = m{number};"
