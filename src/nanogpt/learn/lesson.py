"""The lessons, stage by stage, and the files in which one reads the package."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from nanogpt.errors import UserError

# What someone reads to understand GPT-2. No file in this order uses a later one.
READING_PATH = (
    "text.bpe", "text.tokenizer", "text.batches", "model.layers", "model.position", "model.cache",
    "model.attention", "model.gpt", "generation.sampling", "generation.reader", "evaluation.loss",
    "training.optim", "training.objective.next_token", "training.loop",
)  # fmt: skip

STAGES = {
    1: "Overall grasp",
    2: "In-depth module study",
    3: "Hands-on experiments",
    4: "Comparative learning",
}


@dataclass(frozen=True)
class Lesson:
    """A notebook, and the exercises that belong to it."""

    number: int
    stage: int
    name: str
    title: str

    @property
    def path(self) -> Path:
        """The notebook: inside an installed package, or next to the source in a checkout."""
        package = Path(str(files("nanogpt")))
        installed = package / "lessons"
        folder = installed if installed.is_dir() else package.parent.parent / "lessons"
        return folder / f"{self.number:02}_{self.name}.py"


LESSONS = {
    lesson.number: lesson
    for lesson in (
        Lesson(1, 1, "trip", "The whole trip of a text to its next token"),
        Lesson(2, 1, "learning", "Counting, and learning the same by gradients"),
        Lesson(3, 2, "tokens", "Why subwords, and how a vocabulary is built"),
        Lesson(4, 2, "embeddings", "What a token is, and where it stands"),
        Lesson(5, 2, "choices", "From scores to choices: softmax, loss, sampling"),
        Lesson(6, 2, "attention", "How a token looks at others"),
        Lesson(7, 2, "block", "Residuals, norms, the feed-forward layer, and life without each"),
        Lesson(8, 2, "data", "Windows, padding, packing: which token sees which"),
        Lesson(9, 2, "training", "From a gradient to a step: AdamW, learning rate, loss curves"),
        Lesson(10, 2, "trouble", "When training goes wrong, and how to find out why"),
        Lesson(11, 2, "order", "Order again: RoPE, ALiBi, windows"),
        Lesson(12, 2, "counting", "Counting parameters, bytes, operations and seconds"),
        Lesson(13, 3, "tour", "A tour of the code, in reading order"),
        Lesson(14, 3, "one_thing", "Change one thing, and know whether to believe it"),
        Lesson(15, 3, "own_idea", "A position encoding and an attention of your own"),
        Lesson(16, 3, "own_data", "Your own data, and whether the model memorised it"),
        Lesson(17, 3, "bigger", "Bigger: a scaling law, predicted, then measured"),
        Lesson(18, 3, "machines", "Many machines: what they send each other, and what each saves"),
        Lesson(19, 3, "assistant", "From base model to assistant"),
        Lesson(20, 4, "transformers", "The same model in Hugging Face Transformers"),
    )
}


def find_lesson(number: int) -> Lesson:
    """A lesson by its number. Raises UserError with the numbers there are."""
    if number not in LESSONS:
        there = ", ".join(map(str, LESSONS))
        raise UserError(f"there is no lesson {number}; use one of {there}")
    return LESSONS[number]
