import click


@click.command()
@click.option("--rows", type=int, required=True)
def main(rows):
    print(rows)


main()
