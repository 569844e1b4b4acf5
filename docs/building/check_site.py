"""Check the built site: inner links, public names, nothing remote; list the links that lead out.

`python docs/building/check_site.py` reads `site/`, fetches nothing, and writes
`site/external-links.txt`.
"""

import html.parser
import pathlib
import sys
import urllib.parse

ROOT = pathlib.Path(__file__).parents[2]
SITE = (ROOT / "site").resolve()
NAMES = ROOT / "tests" / "golden" / "public_names.txt"

LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
"""Tags whose address a browser fetches by itself."""


class Page(html.parser.HTMLParser):
    """What one page has and leads to.

    Attributes:
        ids: set of str, places that a link may name.
        links: list of str, addresses of `a`.
        loaded: list of str, addresses that a browser fetches by itself.
    """

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loaded = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Note one tag."""
        found = dict(attrs)
        if found.get("id"):
            self.ids.add(found["id"])
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if found.get(LOADED.get(tag)):
            self.loaded.append(found[LOADED[tag]])


def is_remote(address):
    """Tell whether an address is of another place than the site."""
    return bool(urllib.parse.urlsplit(address).netloc)


def check(pages):
    """Give the faults of all pages, and the links that lead out.

    Args:
        pages: dict of path to `Page`.

    Returns:
        List of sentences, and a dict of address to the pages that have it.
    """
    faults, outside = [], {}
    for path, page in pages.items():
        where = path.relative_to(SITE).as_posix()
        faults += [f"{where} loads {one}" for one in page.loaded if is_remote(one)]
        for address in page.links + [one for one in page.loaded if not is_remote(one)]:
            parts = urllib.parse.urlsplit(address)
            if parts.netloc or parts.scheme:
                outside.setdefault(address, []).append(where)
                continue
            base = SITE if parts.path.startswith("/") else path.parent
            # The page for what is not found is shown at any address: its links begin at the top.
            inner = urllib.parse.unquote(parts.path).lstrip("/")
            target = (base / inner).resolve() if inner else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                faults.append(f"{where} leads to {address}, which is not there")
            elif parts.fragment and target in pages:
                wanted = urllib.parse.unquote(parts.fragment)
                if wanted not in pages[target].ids | {"__skip", ""}:
                    faults.append(f"{where} leads to {address}, a place that is not there")
    return faults, outside


def main():
    """Check, and write the list."""
    pages = {
        path.resolve(): Page(path.read_text(encoding="utf-8")) for path in SITE.rglob("*.html")
    }
    if not pages:
        sys.exit("There is no site. Run `make docs`.")
    faults, outside = check(pages)
    places = set().union(*(page.ids for page in pages.values()))
    names = NAMES.read_text(encoding="utf-8").split()
    faults += [f"no page has {name}" for name in names if f"keras_trgl.{name}" not in places]
    listed = [f"{address}  ({', '.join(sorted(set(at)))})" for address, at in outside.items()]
    (SITE / "external-links.txt").write_text("\n".join(sorted(listed)) + "\n", encoding="utf-8")
    print(
        f"{len(pages)} pages, {len(names)} public names, {len(outside)} links that lead out "
        "(not fetched; site/external-links.txt)"
    )
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
