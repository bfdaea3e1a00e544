import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--alpha", type=float)
print(parser.parse_args().alpha)
