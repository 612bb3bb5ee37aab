"""The tokenization of transformers 2.x against a slow one made from its rules."""

import unicodedata
from itertools import product
from random import Random

import pytest
from slow_tokenizer import SPECIAL, SlowTokenizer
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoTokenizer,
    BertConfig,
    RobertaConfig,
    RobertaTokenizer,
    RobertaTokenizerFast,
)

from dense_hn import DenseHNError
from dense_hn.tokenizer import load_tokenizer, transformers_2

WRITTEN = [
    *(
        "",
        " ",
        "   ",
        "\t",
        "\n",
        " \t\n ",
        "\x1c",
        "\x1c\x1d \x1e\x1f",
        "\u3000",
        "\xa0",
    ),
    *("a", "A", "The Red Lamp", "THE RED LAMP", "the red lamp", "McDonald's", "iPhone"),
    *(" the lamp", "  the lamp", "the lamp ", "the lamp  ", " The  Lamp ", "a  b   c"),
    *(
        "\tThe lamp",
        "\nThe lamp",
        "The\tlamp",
        "The\nlamp",
        "The lamp\n",
        "The \n lamp",
    ),
    *(
        "\x1cThe lamp",
        "The\x1clamp",
        "The lamp\x1f",
        "\u3000The lamp\u3000",
        "\xa0A\xa0",
    ),
    *("\x85A\x85", "\u2028A\u2029B\u2028", "\u200bA\u200b", "a\r\nB", "\x0bA\x0c"),
    *("Café Ünïcode", "ÀÉÎÕÜ", "Ångström", "STRASSE Straße", "İstanbul", "ΌΔΟΣ", "ΣΑΣ"),
    *("A\u0308", "ǅ", "ﬁ", "K", "ДОМ дом", "שלום", "مرحبا", "हिन्दी", "Ⅷ", "Ａ"),
    *("北京 is in 中国", "東京タワー", "한국어", "中 国", "。中国。", "日本\u3000国"),
    *("😀", "😀😀 Ok", "👩‍👩‍👧 Family", "🇩🇪 Flag", "A😀b", "♥ Love", "x² + y² = Z²"),
    *(
        "0",
        "007",
        "1,234.56",
        "3rd 2ND",
        "v2.0-RC1",
        "१२३",
        "½ Cup",
        "10€ $5",
        "1 2  3",
    ),
    *("It's", "it'S", "IT'S", "don't DON'T Don'T", "I'm I'M", "we'LL", "they'Re", "'s"),
    *("'T", " 'T", "a 's", "'ve'Ve", "I'd'D", "rock 'n' Roll", "''", "it’s It’S"),
    *("<", "<>", "< s >", "<s", "s>", "<mask", "<<mask>>", "<mas k>", "</ s>", "<sep>"),
    *("<s><mask", "a<sep>B <SEP> c", "<masK>", "ſ <ſ>", "&lt;s&gt;", "\\<s\\>"),
    *("Hello, World!", "(A) [B] {C}", "a-b_C/d", "e.g. U.S.A.", "...", "?!", "A\x00b"),
    *("http://Example.com/A?b=C#d", "User@Example.COM", "C++ and C#", "#Tag @Name"),
    *("The red lamp is OLD " * 10, " " + "word " * 40, "<mask> " * 30, "x" * 100),
    *(
        "Ä" * 70,
        "a " * 13 + "<mask> b",
        "a " * 12 + "<mask> b",
        "😀" * 20,
        "\n" * 40 + "A",
    ),
]
# Every special token, in three cases, in every place.
AROUND = ["{}", "{} ", " {}", "The {} lamp", "The{}lamp", "{}Lamp", "Lamp{}"]
AROUND += ["A  {}  B", "A\t{}\nB", "{}{}", "{} {}", "A {}{} B", "A{} {}B", "  {}A {}  "]
AROUND += ["{}\x1c{}", "A\x1c{}\x1cB", "<{}>", "{}'s", "A {} ", "\u3000{}\u3000A"]
PLACED = [
    around.format(token, token)
    for around, token in product(
        AROUND, [case for t in SPECIAL for case in (t, t.upper(), t.title())]
    )
]


def drawn(count):
    """Texts drawn from fragments, and from all characters of Unicode 3.2.

    Later characters are in the tables of one Python or library and not in another's.
    """
    random = Random(7)
    known = unicodedata.ucd_3_2_0.category
    characters = [chr(c) for c in range(0x30000) if known(chr(c)) not in ("Cn", "Cs")]
    fragments = [" ", " ", "  ", "\t", "\n", "\x1d", "\xa0", *SPECIAL, "<MASK>", "<S>"]
    fragments += [
        "The",
        "red",
        "LAMP",
        "Élan",
        "北京",
        "😀",
        "42",
        "'s",
        "'T",
        "'ll",
        "-",
    ]
    for number in range(count):
        source = fragments if number % 2 else characters
        yield "".join(random.choices(source, k=random.randrange(14)))


TEXTS = [*WRITTEN, *PLACED, *drawn(1000)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """vocab.json and merges.txt of a byte-level BPE with upper- and lower-case tokens."""
    folder = tmp_path_factory.mktemp("bpe")
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(WRITTEN * 3, vocab_size=700, special_tokens=list(SPECIAL))
    bpe.save_model(str(folder))
    return folder


@pytest.fixture(scope="module")
def old(folder):
    """The tokenizer of that vocabulary with the behaviour of transformers 2.x."""
    return load_tokenizer(str(folder), RobertaConfig(), "transformers-2")


def ids(tokenizer, texts, length=16):
    """Token ids of the texts, cut to a length."""
    return tokenizer(list(texts), max_length=length, truncation=True)["input_ids"]


@pytest.mark.parametrize("length", [3, 16, 512])
def test_tokens_are_those_of_transformers_2(folder, old, length):
    slow = SlowTokenizer(folder)
    assert len(TEXTS) > 1400
    for text, ours in zip(TEXTS, ids(old, TEXTS, length), strict=True):
        assert ours == slow(text, length), repr(text)


def test_todays_tokenizer_gives_other_tokens(folder, old):
    """Each rule is needed: the lower case, the blank, the white space, the tokens."""
    for prefix in (False, True):
        today = RobertaTokenizerFast(
            vocab=str(folder / "vocab.json"),
            merges=str(folder / "merges.txt"),
            add_prefix_space=prefix,
        )
        for text in ("The lamp", "the lamp ", "the <mask>lamp", "the <MASK>"):
            assert ids(today, [text]) != ids(old, [text])
    assert ids(today, ["the lamp"]) == ids(old, ["the lamp"])
    pairs = zip(ids(today, TEXTS, 512), ids(old, TEXTS, 512), strict=True)
    assert sum(a != b for a, b in pairs) > len(TEXTS) // 2


def test_saved_and_loaded_it_is_the_same(old, tmp_path):
    old.backend_tokenizer.no_truncation()
    old.save_pretrained(tmp_path)
    state = old.backend_tokenizer.to_str()
    for again in (
        AutoTokenizer.from_pretrained(tmp_path),
        load_tokenizer(str(tmp_path), RobertaConfig(), "own"),
        load_tokenizer(str(tmp_path), RobertaConfig(), "transformers-2"),
    ):
        assert ids(again, TEXTS) == ids(old, TEXTS)
        again.backend_tokenizer.no_truncation()
        assert again.backend_tokenizer.to_str() == state
        assert again.special_tokens_map == old.special_tokens_map


def test_what_is_left_where_the_tokenizer_is_rebuilt(old, tmp_path):
    """As Pyserini's ance does: right for lower case, no special tokens, no ends."""
    old.save_pretrained(tmp_path)
    rebuilt = RobertaTokenizer.from_pretrained(tmp_path)
    plain = [text.lower().strip() for text in TEXTS]
    plain = [text for text in plain if not any(token in text for token in SPECIAL)]
    assert len(plain) > 500
    assert ids(rebuilt, plain) == ids(old, plain)
    assert ids(rebuilt, ["The lamp"]) != ids(old, ["The lamp"])


def test_other_tokenizers_are_refused(bert, folder):
    with pytest.raises(DenseHNError, match="no byte-level BPE tokenizer"):
        load_tokenizer(str(bert), BertConfig(), "transformers-2")
    tokenizer = load_tokenizer(str(folder), RobertaConfig(), "own")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<Title>"]})
    with pytest.raises(DenseHNError, match="and '<Title>' is one"):
        transformers_2(tokenizer)
