print(len("café"))
