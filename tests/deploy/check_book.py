"""Checks the links of a built book, and that every document is in it.

python check_book.py BOOK SOURCE: exits with 1 if a link of a page leads nowhere, or a page below SOURCE/docs is not in the
book.
"""

import html.parser
import pathlib
import sys
import urllib.parse

# What mdBook adds of its own.
OF_MDBOOK = {"404.html", "print.html", "toc.html"}


class Page(html.parser.HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.links, self.anchors, self.has_begun = [], set(), False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors.update(attributes[name] for name in ("id", "name") if attributes.get(name))
        # What is around the text is mdBook's own.
        self.has_begun |= tag == "main"
        if self.has_begun:
            self.links += [attributes[name] for name in ("href", "src") if attributes.get(name)]

    def handle_endtag(self, tag):
        if tag == "main":
            self.has_begun = False


def main():
    book, source = (pathlib.Path(path).resolve() for path in sys.argv[1:3])
    paths = [path for path in book.rglob("*.html") if path.name not in OF_MDBOOK]
    pages = {path: Page(path) for path in paths}
    faults, checked = [], 0
    for path, page in pages.items():
        for link in page.links:
            target = urllib.parse.urlsplit(link)
            if target.scheme or target.netloc:
                continue
            checked += 1
            found = path if not target.path else (path.parent / urllib.parse.unquote(target.path)).resolve()
            if found.is_dir():
                found /= "index.html"
            where = f"{path.relative_to(book)}: {link}"
            if not found.exists():
                faults.append(f"{where} does not exist")
            elif target.fragment and found in pages:
                if urllib.parse.unquote(target.fragment) not in pages[found].anchors:
                    faults.append(f"{where} has no such heading")
    for document in (source / "docs").rglob("*.md"):
        name = document.relative_to(source).with_suffix(".html")
        if not (book / name).exists():
            faults.append(f"{document.relative_to(source)} is not in book/SUMMARY.md")
    print("\n".join(faults + [f"{len(pages)} pages, {checked} links"]))
    sys.exit(bool(faults) or checked < 100)


main()
