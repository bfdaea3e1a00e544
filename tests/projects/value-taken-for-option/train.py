import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--range")
print(parser.parse_args().range)
