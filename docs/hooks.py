"""What mkdocs adds to the pages in docs/: those that have their home elsewhere.

The front page is README.md, the reference comes from docstrings, the lessons from the notebooks
after they have run. A link to a file that is no page of the site leads to the repository.
"""

import ast
import os
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "nanogpt"
LESSON_PAGES = ROOT / "build" / "lessons"
DEMO_PAGE = ROOT / "build" / "explorer-demo.html"  # the explorer on the demo's model, in one file

# Pages that are files outside docs/.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "exercises/README.md": "exercises.md",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lead to every study and every package, without listing them by hand."""
    studies = [
        {study.name.capitalize(): f"studies/{study.name}/report.md"}
        for study in sorted((ROOT / "docs" / "studies").iterdir())
    ]
    reference: list[dict[str, str]] = [{"nanogpt": "reference/nanogpt.md"}]
    reference += [{name: f"reference/{name}.md"} for name in packages()]
    config.nav = [*(config.nav or []), {"Studies": studies}, {"Reference": reference}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that have their home elsewhere, and the lessons as they ran."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    for name, content in reference().items():
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    files.append(File.generated(config, "lessons.md", content=lessons()))
    files.append(File.generated(config, "one-file.md", content=one_file()))
    for path in LESSON_PAGES.glob("*.html"):
        files.append(File.generated(config, f"lessons/{path.name}", abs_src_path=str(path)))
    if DEMO_PAGE.exists():
        files.append(File.generated(config, DEMO_PAGE.name, abs_src_path=str(DEMO_PAGE)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Make the links of a page hold on the site, too."""
    home = {page: source for source, page in PAGES.items()}
    uri = page.file.src_uri
    source = home.get(uri, f"docs/{uri}")

    def moved(match: re.Match[str]) -> str:
        return match[1] + target_on_the_site(match[2], source, uri, config.repo_url) + match[3]

    links = re.compile(r'(\]\(|(?:src|href)=")([^)"#:\s]+)((?:#[^)"\s]*)?[)"])')
    markdown = links.sub(moved, markdown)
    if uri == "explorer.md" and DEMO_PAGE.exists():
        try_it = (
            f"**[Try it here]({DEMO_PAGE.name})**, on the demo's model: it runs in your browser."
        )
        markdown = markdown.replace("\n\n", f"\n\n{try_it}\n\n", 1)
    return markdown


def target_on_the_site(target: str, source: str, uri: str, repo_url: str | None) -> str:
    """Where a link in the file `source`, which is the page `uri`, leads on the site."""
    path = os.path.normpath(os.path.join(os.path.dirname(source), target))
    folder = os.path.dirname(uri) or "."
    if path in PAGES:
        return os.path.relpath(PAGES[path], folder)
    if path.startswith("docs/"):
        return os.path.relpath(path.removeprefix("docs/"), folder)
    # Without a repository to lead to, a link to a file of it stays on the page.
    return f"{repo_url.rstrip('/')}/blob/main/{path}" if repo_url else "#"


class WorkedExamples(griffe.Extension):
    """Shows the worked examples of docstrings, which begin with >>>, as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            example = re.compile(r"^([ ]*)>>> .*?(?=\n[ ]*\n|\Z)", re.MULTILINE | re.DOTALL)
            fenced = r"\1```pycon\n\g<0>\n\1```"
            obj.docstring.value = example.sub(fenced, obj.docstring.value)


def packages() -> list[str]:
    """The packages of nanogpt, in the alphabet."""
    return sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def reference() -> dict[str, str]:
    """One page for each package: what it says of itself, then its modules."""
    pages = {"nanogpt": reference_page("nanogpt", sorted(PACKAGE.glob("*.py")))}
    for name in packages():
        pages[name] = reference_page(f"nanogpt.{name}", sorted((PACKAGE / name).rglob("*.py")))
    return pages


def reference_page(package: str, paths: list[Path]) -> str:
    """Markdown of a package's page, which mkdocstrings fills from the docstrings."""
    init = next(path for path in paths if path.name == "__init__.py")
    about = ast.get_docstring(ast.parse(init.read_text("utf-8"))) or ""
    parts = [f"# {package}", f"```text\n{about}\n```"]
    for path in paths:
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        if path.name not in ("__init__.py", "__main__.py"):
            parts.append(
                f"## {module}\n\n::: {module}\n    options:\n      show_root_heading: false"
            )
    return "\n\n".join(parts) + "\n"


def lessons() -> str:
    """The page that leads to the lessons, stage by stage."""
    from nanogpt.learn.lesson import LESSONS, STAGES

    lines = [
        "# Lessons",
        "",
        "What you see here is how each lesson ran. To move its sliders and answer its questions,",
        "open it on your own machine: `nanogpt learn 5`.",
    ]
    for stage, title in STAGES.items():
        lines += ["", f"## {stage} {title}", ""]
        for number, lesson in LESSONS.items():
            if lesson.stage == stage:
                page = lesson.path.with_suffix(".html").name
                link = f"[{lesson.title}](lessons/{page})"
                ran = (LESSON_PAGES / page).exists()
                lines.append(f"{number}. {link if ran else lesson.title}")
    return "\n".join(lines) + "\n"


def count(text: str, heading: str = "") -> int:
    """How many lines are not blank, in a file or in the part of it that has a heading."""
    part = text.partition(f"\n# {heading}")[2] if heading else text
    if heading:
        part = re.split(r"\n# [A-Z][^\n]*\n\n|\n\ndef main", part)[0]
    return sum(bool(line.strip()) for line in part.split("\n"))


def one_file() -> str:
    """The page that shows GPT-2 as `nanogpt eject` writes it."""
    from nanogpt.config import load_config
    from nanogpt.eject.eject import eject

    text = eject(load_config(ROOT / "configs" / "gpt2-124m.toml"), "gpt2-124m", "my_gpt.py")
    return f"""\
# GPT-2 in one file

This is `configs/gpt2-124m.toml` as `nanogpt eject gpt2-124m my_gpt.py` writes it: tokenizer,
batches, model, optimizer, training loop, checkpoints and sampling. The package's own source is cut
down to what this recipe uses. The tests hold the losses, the greedy text and the checkpoints of
every recipe's file equal to the package's, bit for bit. The file has {count(text)} lines that are
not blank. {count(text, "The tokenizer")} of them are the tokenizer;
{count(text, "Checkpoints")} write and read the package's checkpoints.

To have your own, with your settings: `nanogpt eject RECIPE my_gpt.py --model.n-layer 6`. It works
for a run, too: `nanogpt eject runs/my my_gpt.py`. The file trains on the folder of token files that
`nanogpt prepare` makes, and it needs torch and numpy alone. Only making it takes ruff, which lays
the text out: `pip install ruff`.

```python
{text}```
"""
