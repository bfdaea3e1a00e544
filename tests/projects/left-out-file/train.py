import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--data")
print(open(parser.parse_args().data).read())
