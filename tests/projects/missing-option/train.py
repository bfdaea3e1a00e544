import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--rows", type=int, required=True)
print(parser.parse_args().rows)
