"""transformers 2.x's RobertaTokenizer with do_lower_case, worked out from its rules.

Shares nothing with dense_hn or the tokenizers library: the rules are those listed in
dense_hn/tokenizer.py, byte-level BPE is GPT-2's as published.
"""

import json
from itertools import pairwise

import regex

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
WORDS = regex.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)


def byte_letters():
    """A visible character for each of the 256 bytes: itself where it is visible."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in visible]
    letters = {byte: chr(byte) for byte in visible}
    return letters | {byte: chr(256 + n) for n, byte in enumerate(rest)}


class SlowTokenizer:
    """Token ids of a text, one text at a time."""

    def __init__(self, folder):
        """Read vocab.json and merges.txt of a folder."""
        self.vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
        lines = (folder / "merges.txt").read_text("utf-8").split("\n")
        merges = [tuple(line.split(" ")) for line in lines if line and line[0] != "#"]
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.letters = byte_letters()

    def __call__(self, text, length):
        """Ids of the text, at most ``length`` of them, <s> and </s> included."""
        if text and not text[0].isspace():
            text = " " + text
        text = "".join(character.lower() for character in text)
        tokens = []
        for piece in regex.split("(" + "|".join(SPECIAL) + ")", text):
            if piece in SPECIAL:
                tokens.append(piece)
            else:
                for word in WORDS.findall(piece.rstrip()):
                    tokens += self.merge([self.letters[b] for b in word.encode()])
        ids = [self.vocabulary[token] for token in tokens][: length - 2]
        return [self.vocabulary["<s>"], *ids, self.vocabulary["</s>"]]

    def merge(self, parts):
        """Join the pair that was learnt first, everywhere, until none is known."""
        while known := [pair for pair in pairwise(parts) if pair in self.ranks]:
            best = min(known, key=self.ranks.get)
            joined, at = [], 0
            while at < len(parts):
                both = tuple(parts[at : at + 2]) == best
                joined.append("".join(parts[at : at + 1 + both]))
                at += 1 + both
            parts = joined
        return parts
