import sys

for epoch in range(int(sys.argv[1])):
    print(epoch)
