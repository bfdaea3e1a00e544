import argparse
import subprocess

parser = argparse.ArgumentParser()
parser.add_argument("--tool")
subprocess.run([parser.parse_args().tool, "--version"], check=True)
