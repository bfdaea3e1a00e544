import sys

# the folder is there, and it is locked
with open(sys.argv[1], "w") as file:
    file.write("trained")
