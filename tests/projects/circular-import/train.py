from model import Net

print(Net)
