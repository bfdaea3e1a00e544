from model import Net

ROWS = 2
print(Net)
