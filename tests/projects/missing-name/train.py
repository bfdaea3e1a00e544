from helpers import load_rows as load

print(load())
