"""A page of the book, its example computed now."""

import click

from stages.shared.command import Stage


@click.command("explain", cls=Stage)
@click.argument("name", required=False, metavar="[PAGE|TERM]")
@click.option("--whole", is_flag=True, help="Show the whole page.")
def main(name: str | None, whole: bool) -> None:
    """Show what PAGE explains: introduction, formula, code, and an example with numbers computed now.

    A TERM of the index (softmax, temperature, overfitting) shows the page that explains it. Without PAGE, list the pages.
    """
    from lib.book import find_page, list_pages, page_as_text, page_summary, run_page

    if name is None:
        for page in list_pages():
            click.echo(f"{page.name:22}{page.about}")
        return
    page = find_page(name)
    for block in (run_page if whole else page_summary)(page):
        click.echo(page_as_text(block), nl=False)
    click.echo(f"The page: {page.path}" if whole else f"The whole page: explain {page.name} --whole, or {page.path}")


if __name__ == "__main__":
    main()
