"""Copy the lines that the pages show of the code, as they are now: `make format` does it."""

from lib.book import list_pages, with_sources

for page in list_pages():
    text = page.path.read_text(encoding="utf-8")
    if (renewed := with_sources(text)) != text:
        page.path.write_text(renewed, encoding="utf-8")
        print(page.path.name)
