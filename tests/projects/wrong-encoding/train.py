print(open("names.csv").read())
