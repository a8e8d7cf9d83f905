"""Generate `tables.py`: spaCy's English rules and ftfy's tables as patterns for `tokenizer.json`.

    python -m gpt1_hf.tokenization_rules.generate        # needs the `exact` extra

GPT-1's text was cleaned by ftfy and split into words by spaCy. Both consist of Python code and tables. This script
reads the tables of the installed versions and turns them into Oniguruma patterns that match where spaCy cuts a text.

spaCy cuts a text at spaces. From each chunk it removes prefixes on the left and suffixes on the right as long as
there are any. The rest is an exception with its own words, an address, or is cut at infixes. Finally, a run of
adjacent words that spells an exception with affixes becomes that exception. The patterns insert spaces:

1. prefixes: at the start of a chunk, and where the last prefix ended, unless an exception starts there;
2. suffixes: where only suffixes follow up to the end of the chunk, unless an exception ends there;
3. exceptions: at the cuts of each word that stands alone;
4. infixes.

Each pattern copies the whole text, which is most of its cost, so there are few patterns with many branches. Empty
matches may not touch, so a search finds the second of two adjacent places only from the first (`\\G`).
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from ..files import write_text


TABLES_FILE = Path(__file__).with_name("tables.py")
START, END = r"(?<!\S)", r"(?!\S)"  # of a chunk, or of a word that an earlier pattern separated
LAST = 8  # most suffixes in a row: the bound keeps the patterns linear in the length of a text
MARKS = '-~!";?+,)(/*[]}{|_'  # the standardisation puts spaces around runs of one of these, which makes them chunks
SUBSTITUTES = {"\u2014": "-", "\u2013": "-", "\u2015": "-", "\u2026": "...", "\u00b4": "'"}


def cuts(words: Iterable[str]) -> set[int]:
    """Positions at which words touch."""
    ends, position = set(), 0
    for word in words:
        position += len(word)
        ends.add(position)
    return ends - {position}


def trie(words: Iterable[str]) -> str:
    """A pattern of words with shared beginnings. A NUL in a word marks the place to match, as `\\K`."""
    heads = defaultdict(set)
    for word in words:
        heads[word[:1]].add(word[1:])
    tails = defaultdict(list)
    for head in sorted(heads.keys() - {"", "\0"}):
        tails[trie(heads[head])].append(re.escape(head))
    branches = [("".join(same) if len(same) == 1 else f"[{''.join(same)}]") + tail for tail, same in tails.items()]
    if "\0" in heads:
        branches.append(r"\K(?=" + trie(heads["\0"]) + END + ")")
    if "" in heads:
        branches.append("")  # last, so that the longest word is matched
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"


def sieve(words: Iterable[str], letters: int = 4) -> str:
    """A [`trie`] that first checks groups of initial letters, which is faster because most searches fail."""
    by_letter = defaultdict(set)
    for word in words:
        by_letter[word[0].lower()].add(word)
    groups = [sorted(by_letter)[start : start + letters] for start in range(0, len(by_letter), letters)]
    guards = ["".join(group) + "".join(group).upper() for group in groups]
    tries = [trie(set().union(*(by_letter[letter] for letter in group))) for group in groups]
    return "(?:" + "|".join(f"(?=[{guard}]){words}" for guard, words in zip(guards, tries, strict=True)) + ")"


def alternation(branches: Iterable[str]) -> str:
    """Join branches. Those that start with a rare, non-ASCII character come last, behind a single check."""
    branches = list(branches)
    beyond = [branch for branch in branches if not branch[0].isascii()]
    return "|".join([*(b for b in branches if b[0].isascii()), rf"(?![\x00-\x7f])(?:{'|'.join(beyond)})"])


def translate(pattern: str) -> str:
    """Translate spaCy's pattern to Oniguruma's syntax: escape sequences become characters."""
    return re.sub(r"\\u([0-9A-Fa-f]{4})|\\U([0-9A-Fa-f]{8})", lambda m: chr(int(m[1] or m[2], 16)), pattern)


def affixes(patterns: Iterable[str], apart: str = "") -> list[str]:
    """
    Branches of an alternation, without the single characters in `apart`.

    Oniguruma can skip to the next possible match only if no branch starts with a class that goes beyond ASCII.
    """
    ascii_characters, branches = "", []
    for pattern in dict.fromkeys(filter(None, map(translate, patterns))):
        if not pattern[0].isascii() and clean(pattern) != pattern:
            continue  # does not occur in cleaned text
        if len(pattern) > 2 or len(pattern) == 2 and pattern[0] != "\\":
            if not re.fullmatch(r"\[[^\[\]]*\]", pattern):
                branches.append(pattern)
        elif pattern[-1] not in apart:
            if pattern.isascii():
                ascii_characters += re.escape(pattern[-1])
            else:
                branches.append(pattern)
    return [f"[{ascii_characters}]", *branches] if ascii_characters else branches


def exceptions(tokenizer) -> tuple[list[tuple[str, list[str]]], list[tuple[str, int]]]:
    """
    spaCy's exceptions that occur in cleaned text, and whose cuts differ from those of the affix rules.

    Returns:
        Words with their parts, and words with a position where only the affix rules would cut them.
    """
    from spacy.tokenizer import Tokenizer

    affix_rules = Tokenizer(
        tokenizer.vocab,
        prefix_search=tokenizer.prefix_search,
        suffix_search=tokenizer.suffix_search,
        infix_finditer=tokenizer.infix_finditer,
        url_match=tokenizer.url_match,
    )
    divided, whole = [], []
    for text, parts in tokenizer.rules.items():
        if clean(text) != text or set(text) & set(MARKS) or text.split() != [text]:
            continue
        if "\u00b0" in text:
            continue  # the clean-up puts spaces around this symbol
        words = [part[65] for part in parts]  # 65 is spaCy's number for the attribute ORTH
        by_affixes = cuts(token.text for token in affix_rules(text))
        if cuts(words) - by_affixes:
            divided.append((text, words))
        whole += [(text, position) for position in sorted(by_affixes - cuts(words))]
    return divided, whole


def clean(text: str) -> str:
    """Apply ftfy's and the standardisation's fixes of single characters."""
    import ftfy

    fixed = ftfy.fix_text(text, fix_encoding=False, unescape_html=False, normalization=None)
    fixed = "".join(SUBSTITUTES.get(character, character) for character in fixed)
    return re.sub(r"[^\S\n]", " ", fixed)


def word_cuts(nlp) -> list[str]:
    """Patterns of the places where spaCy cuts cleaned text. Each applies to the result of the one before."""
    divided, whole = exceptions(nlp.tokenizer)
    # Exceptions that the affix rules would cut: the text after the cut -> the texts before it.
    kept = defaultdict(set)
    for text, position in whole:
        kept[text[position:]].add(text[:position])
    # "im." is "i" and "m.": the last part of an exception and the dot after it form another exception.
    for text, words in list(divided):
        if words[-1] in kept["."]:
            kept["."].add(text)
            divided.append((f"{text}.", [*words[:-1], f"{words[-1]}."]))

    def keeps(ends: Iterable[str], follow: str = END, start: str = r"\s", heads: set[str] | None = None) -> str:
        """Not where an exception continues with one of `ends`."""
        return "".join(
            rf"(?!{re.escape(end)}{follow}(?<={start}{trie(heads or kept[end])}{re.escape(end)}))"
            for end in sorted(kept.keys() & set(ends))
        )

    starts = trie(text for text, _ in whole if nlp.tokenizer.find_prefix(text) and text != "''")
    prefixes = [other.replace(r"\.\.+", r"\.\.++") for other in affixes(nlp.Defaults.prefixes, apart=MARKS)]
    runs = [re.escape(mark) for mark in MARKS if len(nlp.tokenizer(3 * mark)) == 1]  # a run of them is not cut
    prefix = alternation(["''", *(f"{mark}++" for mark in runs), *prefixes])

    suffixes = [other.replace("\u00b0", "\u00b0 ") for other in affixes(nlp.Defaults.suffixes, apart="'" + MARKS)]
    after_digit = [other.removeprefix("(?<=[0-9])") for other in suffixes if other.startswith("(?<=[0-9])")]
    # In a run of apostrophes, every two are one word. A run of dots is one word.
    suffixes = [other for other in suffixes if not other.startswith("(?<=[0-9])") and other != r"\.\.+"]
    # A longer run gives back only a last apostrophe before an s, once: otherwise a run takes quadratic time.
    suffix = alternation(["(?<!')''?+", "(?<=[^']'')(?>'+(?='[sS])|'+)", r"(?<!\.)\.\.++", *suffixes])
    rest = f"(?:{suffix}){{0,{LAST}}}?{END}"
    rest_or_run = f"(?:{suffix}){{0,{LAST}}}?(?![^\\s{''.join(runs)}])"
    run = "|".join(f"(?={mark})(?<!{mark})" for mark in runs)
    units = {head for head in kept["."] if len(nlp.tokenizer("1" + head)) == 2}  # "390m." is "390" and "m."
    capital = {head for head in kept["."] if head[0].isupper()}  # "end.Mr. Smith" is cut before "Mr."
    dot = keeps(".", follow=r"(?!\.)")
    dot += keeps(".", follow=r"(?!\.)", start="[0-9]", heads=units)
    dot += keeps(".", follow=r"(?!\.)", start=r"[a-z]\.", heads=capital)
    quote = keeps("'", follow=f"(?=(?!'){rest})")
    sign = keeps(end for end in kept if not end[0].isalnum() and end not in ("'", "."))

    patterns = [
        rf"(?:\G|{START})(?!{starts}{rest_or_run})(?>{prefix})\K(?=\S)|(?!\G)(?=[{''.join(runs)}])(?<=\S)(?:{run})",
        rf"(?=(?:{suffix}){{1,{LAST}}}?{END})(?<=\S){dot}{quote}{sign}",
    ]
    # Exceptions are searched by their most frequent second parts, then by the third, then by their first letters after
    # a space. The first word also has a space before it.
    parts = []
    for tail in ("n't", "'"):
        heads = defaultdict(set)
        for text, words in divided:
            if words[1].startswith(tail):
                heads[text[len(words[0]) :]].add(words[0])
        ends = (rf"(?={re.escape(end)}{END})(?<=\s{trie(heads[end])})" for end in sorted(heads))
        parts.append(rf"(?={tail})(?:{'|'.join(ends)})")
    heads = defaultdict(set)
    for _, words in divided:
        if len(words) == 3:
            heads[words[2]].add("".join(words[:2]))
    for end in sorted(heads):
        # Vowels are so frequent that the search stops at the letter before them instead.
        before = {head[-1] + r"\K" for head in heads[end]} if end[0] in "aeio" else {""}
        parts += (rf"{last}(?={re.escape(end)}{END})(?<=\s{trie(heads[end])})" for last in sorted(before))
    others = (words for _, words in divided if "'" not in words[1])
    parts.append(" " + sieve(f"{words[0]}\0{''.join(words[1:])}" for words in others))
    parts.append(rf"[0-9]\K(?=(?:{'|'.join(after_digit)}|{trie(units)}\.){END})")
    patterns.append("|".join(parts))

    before, after = [], []
    for infix in affixes(nlp.Defaults.infixes):
        infix = re.sub(r"\[\+\\-\\\*\^\]", r"\^", infix)
        behind, middle, ahead = re.fullmatch(r"(\(\?<=\[[^\]]*\]\))?(.*?)(\(\?=\[[^\]]*\]\))?", infix).groups("")
        if middle == r"\.":
            # Addresses are not cut, and an abbreviation keeps its dot. Only the hosts of addresses matter here: apart
            # from a dot between letters, an address contains nothing to cut.
            domain = nlp.tokenizer.url_match.__self__.pattern
            domain = translate(domain[domain.rindex("[a-z") : domain.rindex("]{2,63}")]) + "]{2,63}"
            label = "[A-Za-z0-9\u00a1-\uffff][A-Za-z0-9\u00a1-\uffff_-]{0,62}"
            host = rf"(?!(?:{label}\.){{1,{LAST}}}{domain}(?::\d{{2,5}})?(?:#\S*)?{END})"
            ahead += host + keeps(end for end in kept if end[0].isalnum())
            dots = [rf"(?=\.{ahead})(?!\G){behind}{dot}", rf"\.\K{behind[:-1]}\.){ahead}"]
        elif set(re.sub(r"[()?:|]", "", middle)) - set(MARKS + "".join(SUBSTITUTES)):
            before.append(r"(?<!\.)\.\.++" if middle == r"\.\.+" else infix + r"(?!\S{0,64}@)")
            after.append(r"\.\.++" if middle == r"\.\.+" else infix)
    before = f"(?={'|'.join(before)})"
    infixes = [rf"{before}(?!\G)(?<=\S)", rf"\G(?!{starts}(?:{END}|{before}))(?>{'|'.join(after)})\K(?=\S)"]
    return [*patterns, "|".join([*dots, *infixes])]


def characters(nlp) -> tuple[dict[str, str], str]:
    """
    Replacements of single characters by the clean-up.

    Returns:
        Characters with their replacements, and a character class of those that are always separate words.
    """
    tables = [infix for infix in nlp.Defaults.infixes if re.fullmatch(r"\[[^\[\]]*\]", infix)]
    marks = "".join(mark for mark in MARKS if len(nlp.tokenizer(3 * mark)) == 3)  # in runs, each is a word
    words = "".join(map(re.escape, marks)) + "".join(translate(table)[1:-1] for table in tables)
    # ftfy's tables and white space end with the full-width forms. Other control characters are removed.
    places = [9, 12, 13, *range(0x7F, 0xD800), *range(0xE000, 0x10000)]
    replaced = {chr(place): clean(chr(place)) for place in places}
    return {character: fixed for character, fixed in replaced.items() if fixed not in (character, "")}, words


FILE = """\
\"\"\"Generated by `python -m gpt1_hf.tokenization_rules.generate` from spaCy {spacy} and ftfy {ftfy}: do not edit.

`generate.py` explains the patterns, and `tokenization_gpt1.py` uses them.
\"\"\"

# Characters with their replacements.
REPLACED = dict(
    zip(
        {sources},
        {targets},
        strict=True,
    )
)

# Character class of those that are always separate words.
WORDS = {words}

# Patterns of the places where spaCy cuts cleaned text, applied in order.
WORD_CUTS = (
{cuts}
)
"""


def literal(text: str, indent: int) -> str:
    """A Python string literal in ASCII, broken into lines."""
    lines, line = [], ""
    for character in text:
        piece = ascii(character)[1:-1].replace('"', '\\"') if character != "'" else character
        if len(line) + len(piece) > 112 - indent:
            lines.append(line)
            line = ""
        line += piece
    separator = "\n" + " " * (indent + 4)
    return "(" + separator + separator.join(f'"{line}"' for line in [*lines, line]) + "\n" + " " * indent + ")"


def main():
    """Write the tables of the installed spaCy and ftfy."""
    try:
        import ftfy
        import spacy
    except ImportError as error:
        raise SystemExit("the tables are generated from spaCy and ftfy: pip install 'gpt1_hf[exact]'") from error

    nlp = spacy.blank("en")
    replaced, words = characters(nlp)
    tables = FILE.format(
        spacy=spacy.__version__,
        ftfy=ftfy.__version__,
        sources=literal("".join(replaced), 8),
        targets=literal("\0".join(replaced.values()), 8) + '.split("\\0")',
        words=literal(words, 0),
        cuts="\n".join(f"    {literal(pattern, 4)}," for pattern in word_cuts(nlp)),
    )
    write_text(TABLES_FILE, tables)
    print(f"{TABLES_FILE.name}: spaCy {spacy.__version__}, ftfy {ftfy.__version__}")


if __name__ == "__main__":
    main()
