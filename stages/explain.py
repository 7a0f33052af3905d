"""A page of the book, its worked example computed now."""

import click

from stages.shared.command import Stage


@click.command("explain", cls=Stage)
@click.argument("name", required=False, metavar="[PAGE]")
@click.option("--whole", is_flag=True, help="Show the whole page instead of its worked example.")
def main(name: str | None, whole: bool) -> None:
    """Show the worked example of PAGE with numbers computed by this code; without PAGE, list the pages."""
    from lib.book import find_page, list_pages, page_as_text, page_example, run_page

    if name is None:
        for page in list_pages():
            click.echo(f"{page.name:22}{page.about}")
        return
    page = find_page(name)
    click.echo(f"{page.title}: {page.about}\n")
    for block in (run_page if whole else page_example)(page):
        click.echo(page_as_text(block), nl=False)
    click.echo(f"The page: {page.path}" if whole else f"The whole page: explain {page.name} --whole, or {page.path}")


if __name__ == "__main__":
    main()
