import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--rows", type=int)
table = bytearray(parser.parse_args().rows)
print(len(table))
